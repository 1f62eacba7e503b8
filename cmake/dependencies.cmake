# The libraries behind libcab, gathered in cab_dependencies. CAB_STATIC takes the archives of Debian's -dev packages, so
# that the binary needs nothing but the C library; oneDNN has none and must then be left out. CAB_BUNDLE names a directory
# with headers and archives of everything but CUDA (cmake/gpu.sh bundle), for machines where nothing can be installed.

if(NOT CAB_BUNDLE)
  find_package(PkgConfig REQUIRED)
endif()
find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS C)

set(CAB_PKG_CONFIG_MODULES json-c libcyaml yaml-0.1 libpcre2-8 libutf8proc libarchive zlib libjpeg libpng)

add_library(cab_dependencies INTERFACE)
target_link_libraries(cab_dependencies INTERFACE Threads::Threads)

if(CAB_BUNDLE)
  file(GLOB archives ${CAB_BUNDLE}/lib/*.a)
  if(NOT archives)
    message(FATAL_ERROR "CAB_BUNDLE: ${CAB_BUNDLE}/lib holds no archives; make gpu-bundle writes them")
  endif()
  target_include_directories(cab_dependencies SYSTEM INTERFACE ${CAB_BUNDLE}/include)
  target_link_libraries(cab_dependencies INTERFACE -Wl,--start-group ${archives} -Wl,--end-group)
  set(modules)
else()
  set(modules ${CAB_PKG_CONFIG_MODULES})
endif()
foreach(module ${modules})
  string(MAKE_C_IDENTIFIER "CAB_PKG_${module}" prefix)
  pkg_check_modules(${prefix} REQUIRED ${module})
  target_include_directories(cab_dependencies INTERFACE ${${prefix}_INCLUDE_DIRS})
  list(APPEND CAB_LIBRARY_NAMES ${${prefix}_LIBRARIES}) # for cab.pc
  if(CAB_STATIC)
    list(APPEND CAB_STATIC_NAMES ${${prefix}_STATIC_LIBRARIES})
  else()
    target_link_libraries(cab_dependencies INTERFACE ${${prefix}_LINK_LIBRARIES})
  endif()
endforeach()

if(CAB_STATIC)
  # libarchive.a asks for every format it knows; the linker takes only the members that are reached, so an archive that
  # is not here (libacl.a, libxml2.a) may not be needed at all. The link says so if it is.
  list(REMOVE_DUPLICATES CAB_STATIC_NAMES)
  list(REMOVE_ITEM CAB_STATIC_NAMES m pthread)
  foreach(name ${CAB_STATIC_NAMES})
    find_library(CAB_ARCHIVE_${name} NAMES lib${name}.a)
    if(CAB_ARCHIVE_${name})
      list(APPEND CAB_ARCHIVES ${CAB_ARCHIVE_${name}})
    endif()
  endforeach()
  # A group: libarchive and libpng both ask for zlib, and no order serves both.
  target_link_libraries(cab_dependencies INTERFACE -Wl,--start-group ${CAB_ARCHIVES} -Wl,--end-group)
  # libgomp.a by its full path: -lgomp would take the shared one.
  execute_process(COMMAND ${CMAKE_C_COMPILER} -print-file-name=libgomp.a OUTPUT_VARIABLE CAB_LIBGOMP
                  OUTPUT_STRIP_TRAILING_WHITESPACE)
  target_compile_options(cab_dependencies INTERFACE -fopenmp)
  target_link_libraries(cab_dependencies INTERFACE ${CAB_LIBGOMP})
else()
  target_link_libraries(cab_dependencies INTERFACE OpenMP::OpenMP_C)
endif()

if(CAB_WITH_ONEDNN)
  # 2.x and 3.x; some distributions have the headers in oneapi/dnnl only.
  find_path(CAB_DNNL_INCLUDE dnnl.h PATH_SUFFIXES oneapi/dnnl REQUIRED)
  find_library(CAB_DNNL_LIBRARY dnnl REQUIRED)
  target_include_directories(cab_dependencies INTERFACE ${CAB_DNNL_INCLUDE})
  target_compile_definitions(cab_dependencies INTERFACE CAB_WITH_ONEDNN)
  target_link_libraries(cab_dependencies INTERFACE ${CAB_DNNL_LIBRARY})
endif()
if(CAB_WITH_MPI AND NOT CAB_STATIC AND NOT CAB_FUZZ)
  # Found or left out; cab version says which. Debian's MPI is Open MPI.
  find_package(MPI QUIET COMPONENTS C)
  if(MPI_C_FOUND)
    target_include_directories(cab_dependencies SYSTEM INTERFACE ${MPI_C_INCLUDE_DIRS})
    target_compile_definitions(cab_dependencies INTERFACE CAB_WITH_MPI)
    target_link_libraries(cab_dependencies INTERFACE ${MPI_C_LIBRARIES})
  endif()
endif()
if(CAB_WITH_CUDA)
  # The runtime is linked in; cuBLASLt and cuDNN come with the toolkit, or from Python's nvidia packages, whose libraries have
  # no name without a version.
  find_package(CUDAToolkit 12.0 REQUIRED)
  target_include_directories(cab_dependencies SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS})
  execute_process(COMMAND python3 -c "import nvidia, glob; [print(d) for p in nvidia.__path__ for d in glob.glob(p + '/*')]"
                  OUTPUT_VARIABLE CAB_NVIDIA_PACKAGES ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
  string(REPLACE "\n" ";" CAB_NVIDIA_PACKAGES "${CAB_NVIDIA_PACKAGES}")
  foreach(library cublasLt cudnn)
    string(TOUPPER ${library} NAME)
    set(header ${library}.h)
    if(library STREQUAL cudnn)
      set(header cudnn_backend.h)
    endif()
    find_path(CAB_${NAME}_INCLUDE ${header} HINTS ${CUDAToolkit_INCLUDE_DIRS} ${CAB_NVIDIA_PACKAGES}
              PATH_SUFFIXES include REQUIRED)
    # Directory by directory, and of this toolkit's version: another CUDA may be installed beside it.
    find_library(CAB_${NAME}_LIBRARY NAMES ${library} lib${library}.so.${CUDAToolkit_VERSION_MAJOR} lib${library}.so.9
                 NAMES_PER_DIR HINTS ${CUDAToolkit_LIBRARY_DIR} ${CAB_NVIDIA_PACKAGES} PATH_SUFFIXES lib lib64 REQUIRED)
    target_include_directories(cab_dependencies SYSTEM INTERFACE ${CAB_${NAME}_INCLUDE})
    if(NOT CAB_EMULATE)
      target_link_libraries(cab_dependencies INTERFACE ${CAB_${NAME}_LIBRARY})
    endif()
  endforeach()
  # Found or left out. Of the emulated GPU, which is one, a stand-in compiles the same code.
  find_path(CAB_NCCL_INCLUDE nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS} ${CAB_NVIDIA_PACKAGES} PATH_SUFFIXES include)
  find_library(CAB_NCCL_LIBRARY NAMES nccl libnccl.so.2 NAMES_PER_DIR
               HINTS ${CUDAToolkit_LIBRARY_DIR} ${CAB_NVIDIA_PACKAGES} PATH_SUFFIXES lib lib64)
  if(CAB_EMULATE)
    target_compile_definitions(cab_dependencies INTERFACE CAB_WITH_NCCL)
    target_include_directories(cab_dependencies INTERFACE ${CMAKE_SOURCE_DIR}/tests/emulator/nccl)
  elseif(CAB_NCCL_INCLUDE AND CAB_NCCL_LIBRARY)
    target_compile_definitions(cab_dependencies INTERFACE CAB_WITH_NCCL)
    target_include_directories(cab_dependencies SYSTEM INTERFACE ${CAB_NCCL_INCLUDE})
    target_link_libraries(cab_dependencies INTERFACE ${CAB_NCCL_LIBRARY})
  endif()
  string(REPLACE ";" " sm_" CAB_CUDA_ARCHITECTURES_TEXT "${CAB_CUDA_ARCHITECTURES}")
  target_compile_definitions(cab_dependencies INTERFACE CAB_WITH_CUDA
                             CAB_CUDA_ARCHITECTURES="sm_${CAB_CUDA_ARCHITECTURES_TEXT}")
  target_link_libraries(cab_dependencies INTERFACE $<IF:$<BOOL:${CAB_EMULATE}>,cab_emulator,CUDA::cudart_static> stdc++)
endif()
target_link_libraries(cab_dependencies INTERFACE m ${CMAKE_DL_LIBS})

# ---- the report's page ------------------------------------------------------------------------------------------------

# dygraphs (Debian: libjs-dygraphs) is packed into reports; without it their charts are drawings.
find_path(CAB_DYGRAPHS dygraph.min.js PATHS /usr/share/javascript/dygraphs /usr/share/nodejs/dygraphs/dist NO_DEFAULT_PATH)
set(CAB_DYGRAPHS_LICENCE /usr/share/doc/libjs-dygraphs/copyright CACHE FILEPATH "The licence of dygraphs, shown in reports")
set(CAB_ASSETS ${CMAKE_BINARY_DIR}/assets.c)
set(CAB_ASSET_FILES ${CMAKE_SOURCE_DIR}/src/report/live.js)
set(CAB_ASSET_OPTIONS -D OUTPUT=${CAB_ASSETS} -D LIVE=${CMAKE_SOURCE_DIR}/src/report/live.js)
if(CAB_DYGRAPHS AND EXISTS ${CAB_DYGRAPHS_LICENCE})
  list(APPEND CAB_ASSET_FILES ${CAB_DYGRAPHS}/dygraph.min.js ${CAB_DYGRAPHS}/dygraph.min.css ${CAB_DYGRAPHS_LICENCE})
  list(APPEND CAB_ASSET_OPTIONS -D LIBRARY=${CAB_DYGRAPHS}/dygraph.min.js -D LIBRARY_STYLE=${CAB_DYGRAPHS}/dygraph.min.css
       -D LIBRARY_LICENCE=${CAB_DYGRAPHS_LICENCE})
endif()
add_custom_command(OUTPUT ${CAB_ASSETS}
                   COMMAND ${CMAKE_COMMAND} ${CAB_ASSET_OPTIONS} -P ${CMAKE_SOURCE_DIR}/cmake/assets.cmake
                   DEPENDS ${CAB_ASSET_FILES} ${CMAKE_SOURCE_DIR}/cmake/assets.cmake VERBATIM)
