# The libraries behind libcab, gathered in cab_dependencies. CAB_STATIC takes the archives of Debian's -dev packages, so
# that the binary needs nothing but the C library; oneDNN has none and must then be left out.

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS C)

set(CAB_PKG_CONFIG_MODULES json-c libcyaml yaml-0.1 libpcre2-8 libutf8proc libarchive libjpeg libpng)

add_library(cab_dependencies INTERFACE)
target_link_libraries(cab_dependencies INTERFACE Threads::Threads)

foreach(module ${CAB_PKG_CONFIG_MODULES})
  string(MAKE_C_IDENTIFIER "CAB_PKG_${module}" prefix)
  pkg_check_modules(${prefix} REQUIRED ${module})
  target_include_directories(cab_dependencies INTERFACE ${${prefix}_INCLUDE_DIRS})
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
      target_link_libraries(cab_dependencies INTERFACE ${CAB_ARCHIVE_${name}})
    endif()
  endforeach()
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
if(CAB_WITH_CUDA)
  # The runtime is linked in; cuBLASLt and cuDNN are found where the driver's user installed them.
  find_package(CUDAToolkit 12.0 REQUIRED)
  find_path(CAB_CUDNN_INCLUDE cudnn_backend.h HINTS ${CUDAToolkit_INCLUDE_DIRS} REQUIRED)
  find_library(CAB_CUDNN_LIBRARY cudnn HINTS ${CUDAToolkit_LIBRARY_DIR} REQUIRED)
  string(REPLACE ";" " " CAB_CUDA_ARCHITECTURES_TEXT "${CAB_CUDA_ARCHITECTURES}")
  target_include_directories(cab_dependencies INTERFACE ${CAB_CUDNN_INCLUDE})
  target_compile_definitions(cab_dependencies INTERFACE CAB_WITH_CUDA
                             CAB_CUDA_ARCHITECTURES="sm_${CAB_CUDA_ARCHITECTURES_TEXT}")
  target_link_libraries(cab_dependencies INTERFACE CUDA::cudart_static CUDA::cublasLt ${CAB_CUDNN_LIBRARY} stdc++)
endif()
target_link_libraries(cab_dependencies INTERFACE m ${CMAKE_DL_LIBS})
