# cmake -D OUTPUT=FILE -D LIVE=FILE [-D LIBRARY=FILE -D LIBRARY_STYLE=FILE -D LIBRARY_LICENCE=FILE] -P assets.cmake
#
# Writes the C file by which the files of the report's page are part of the library, as src/report/page.h declares them. A file
# that is not given becomes "".

function(put name file)
  set(text "")
  if(file)
    file(READ "${file}" text)
    # A browser would look for the map beside the page.
    string(REGEX REPLACE "\n?(//|/\\*)# sourceMappingURL=[^\n]*\n?" "\n" text "${text}")
  endif()
  string(HEX "${text}" bytes)
  string(REGEX REPLACE "(..)" "'\\\\x\\1'," bytes "${bytes}")
  file(APPEND "${OUTPUT}.new" "\nconst char ${name}[] = {\n${bytes}0};\n")
endfunction()

file(WRITE "${OUTPUT}.new" "/* Made by cmake/assets.cmake. */\n#include \"report/page.h\"\n")
put(cab_page_live "${LIVE}")
put(cab_page_library "${LIBRARY}")
put(cab_page_library_style "${LIBRARY_STYLE}")
put(cab_page_library_licence "${LIBRARY_LICENCE}")
file(RENAME "${OUTPUT}.new" "${OUTPUT}")
