# What `make install` puts where: the tool, libcab.a, cab.h, cab.pc, the CMake package, manual pages, completions, licence.

include(CMakePackageConfigHelpers)

install(TARGETS libcab ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} PUBLIC_HEADER DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

list(JOIN CAB_PKG_CONFIG_MODULES " " CAB_PC_REQUIRES)
set(CAB_PC_LIBS "-fopenmp -lm -lpthread")
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
# At install time, because --prefix may give another prefix than the one configured.
install(CODE "
  set(CAB_PC_REQUIRES \"${CAB_PC_REQUIRES}\")
  set(CAB_PC_LIBS \"${CAB_PC_LIBS}\")
  set(PROJECT_DESCRIPTION \"${PROJECT_DESCRIPTION}\")
  set(PROJECT_VERSION \"${PROJECT_VERSION}\")
  set(CMAKE_INSTALL_LIBDIR \"${CMAKE_INSTALL_LIBDIR}\")
  set(CMAKE_INSTALL_INCLUDEDIR \"${CMAKE_INSTALL_INCLUDEDIR}\")
  configure_file(\"${CMAKE_SOURCE_DIR}/cmake/cab.pc.in\" \"${CMAKE_BINARY_DIR}/cab.pc\" @ONLY)
")
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
