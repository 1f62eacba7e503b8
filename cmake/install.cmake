# What `make install` puts where: the tool, libcab.a and libcab.so, cab.h, cab.pc, the CMake package, manual pages, completions,
# licences; what `make package` packs, which is the same; and the record by which `make uninstall` takes it back.

include(CMakePackageConfigHelpers)

install(TARGETS libcab ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} PUBLIC_HEADER DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
if(CAB_SHARED)
  install(TARGETS libcab_shared LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright)
if(CAB_DYGRAPHS)
  install(FILES ${CAB_DYGRAPHS_LICENCE} DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright.dygraphs)
endif()

list(REMOVE_DUPLICATES CAB_LIBRARY_NAMES)
list(TRANSFORM CAB_LIBRARY_NAMES PREPEND -l OUTPUT_VARIABLE CAB_PC_LIBS)
list(JOIN CAB_PC_LIBS " " CAB_PC_LIBS)
string(APPEND CAB_PC_LIBS " -fopenmp -lm -lpthread")
set(CAB_CONFIG_LIBS "m")
if(CAB_WITH_ONEDNN)
  string(PREPEND CAB_PC_LIBS "-ldnnl ")
  string(PREPEND CAB_CONFIG_LIBS "dnnl;")
endif()
if(CAB_WITH_CUDA)
  foreach(library cudart_static cublasLt cudnn stdc++ dl rt)
    string(APPEND CAB_PC_LIBS " -l${library}")
    string(PREPEND CAB_CONFIG_LIBS "${library};")
  endforeach()
  string(PREPEND CAB_PC_LIBS "-L${CUDAToolkit_LIBRARY_DIR} ")
endif()
set(CAB_CONFIG_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/cab)
file(RELATIVE_PATH CAB_CONFIG_TO_PREFIX /${CAB_CONFIG_DIR} /)
configure_file(cmake/cabConfig.cmake.in cabConfig.cmake @ONLY)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/cabConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/cabConfig.cmake ${CMAKE_BINARY_DIR}/cabConfigVersion.cmake
        DESTINATION ${CAB_CONFIG_DIR})
file(RELATIVE_PATH CAB_PC_TO_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
set(CAB_PC_PRIVATE "") # the shared library brings its own libraries; pkg-config --static names them
if(CAB_SHARED)
  set(CAB_PC_PRIVATE "\nLibs.private:")
endif()
configure_file(cmake/cab.pc.in cab.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/cab.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(DIRECTORY recipes/ DESTINATION ${CMAKE_INSTALL_DATADIR}/cab/recipes FILES_MATCHING PATTERN "*.yaml")

if(TARGET cab)
  install(TARGETS cab RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  # The tool knows its own manual and its own words: both are written by running it.
  set(CAB_DOC ${CMAKE_BINARY_DIR}/doc)
  add_custom_command(OUTPUT ${CAB_DOC}/stamp
                     COMMAND sh ${CMAKE_SOURCE_DIR}/cmake/docs.sh $<TARGET_FILE:cab> ${CAB_DOC}
                     COMMAND ${CMAKE_COMMAND} -E touch ${CAB_DOC}/stamp
                     DEPENDS cab ${CMAKE_SOURCE_DIR}/cmake/docs.sh VERBATIM)
  if(CAB_SANITIZE OR CAB_COVERAGE)
    add_custom_target(docs DEPENDS ${CAB_DOC}/stamp)
  else()
    add_custom_target(docs ALL DEPENDS ${CAB_DOC}/stamp)
  endif()
  install(DIRECTORY ${CAB_DOC}/man1/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
  install(FILES ${CAB_DOC}/cab.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME cab)
  install(FILES ${CAB_DOC}/_cab DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
  install(FILES ${CAB_DOC}/cab.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
endif()

# Last: the record of all that was installed above, for `make uninstall`. A package manager keeps its own.
install(CODE "
  set(prefix \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}\")
  if(NOT prefix MATCHES _CPack_Packages)
    string(REPLACE \";\" \"\\n\" files \"\${CMAKE_INSTALL_MANIFEST_FILES}\")
    file(WRITE \"\${prefix}/${CMAKE_INSTALL_DATADIR}/cab/installed\" \"\${files}\\n\")
  endif()
")

# ---- packages: a .deb of a usual build, a tarball of a portable one ------------------------------------------------------

set(CPACK_PACKAGE_NAME cab)
set(CPACK_PACKAGE_CONTACT "the maintainers of cab <cab@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_PACKAGE_DIRECTORY ${CMAKE_SOURCE_DIR}/build/packages)
set(CPACK_STRIP_FILES ON)
set(CPACK_GENERATOR DEB)
if(CAB_STATIC)
  set(CPACK_GENERATOR TGZ)
endif()
set(CPACK_PACKAGE_FILE_NAME cab-${PROJECT_VERSION}-linux-x86_64)
set(CPACK_PACKAGING_INSTALL_PREFIX /)
if(NOT CAB_STATIC)
  set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
endif()
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
include(CPack)
