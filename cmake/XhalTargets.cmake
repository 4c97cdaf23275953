# SPDX-License-Identifier: Apache-2.0
# What every target of this tree has in common, and how tests and installed files are declared.
#
#   xhal_target_defaults(<target>)                     language level, warnings, visibility, sanitizers
#   xhal_plugin_output(<target> <manifest> [EXAMPLE])  a MODULE: into the plugin folder with its manifest, and installed
#   xhal_add_test(<name> SOURCES ... LIBS ... ...)     one GoogleTest program; each of its cases is a ctest test
#   xhal_add_python_test(<name> SOURCES ... ...)       pytest files as one test, run with the python that has torch
#   xhal_add_subfolders()                              every folder below that has a CMakeLists.txt
#   xhal_install_library(<target> [HEADERS <dir>...])  install it and export it as xhal::<target>
#   xhal_install_program(<target>...)                  install executables
#   xhal_install_package()                             called once, last: xhal-config.cmake, for the build tree too, and
#                                                      pkg-config files

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
include(GoogleTest)
find_package(Threads REQUIRED)
if(BUILD_TESTING)
  enable_testing()
  find_package(GTest REQUIRED)
endif()

set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(XHAL_PLUGIN_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib/xhal/plugins)
set(XHAL_PLUGIN_INSTALL_DIR ${CMAKE_INSTALL_LIBDIR}/xhal/plugins)

if(XHAL_CCACHE)
  find_program(XHAL_CCACHE_PROGRAM ccache)
  mark_as_advanced(XHAL_CCACHE_PROGRAM)
  foreach(lang C CXX)
    if(XHAL_CCACHE_PROGRAM AND NOT CMAKE_${lang}_COMPILER_LAUNCHER)
      set(CMAKE_${lang}_COMPILER_LAUNCHER ${XHAL_CCACHE_PROGRAM})
    endif()
  endforeach()
endif()

# Language level, warnings as errors, hidden symbols and the sanitizers of the preset, for one target of ours.
function(xhal_target_defaults target)
  set_target_properties(${target} PROPERTIES
    CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF
    C_STANDARD 11 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF
    C_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Werror
    $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>>:-fno-gnu-unique>)
  get_target_property(type ${target} TYPE)
  if(XHAL_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${XHAL_SANITIZE} -fno-omit-frame-pointer
      -fno-sanitize-recover=all)
    target_link_options(${target} PRIVATE -fsanitize=${XHAL_SANITIZE})
  endif()
  # clang leaves the sanitizer's symbols of a shared library to the program, so -z defs would refuse every one.
  if(type MATCHES "^(SHARED|MODULE)_LIBRARY$" AND
     NOT (XHAL_SANITIZE AND CMAKE_CXX_COMPILER_ID MATCHES "Clang"))
    target_link_options(${target} PRIVATE -Wl,-z,defs)
  endif()
endfunction()

# Puts a plugin (a MODULE library) and its manifest into the plugin folder, in the build tree and when installed. Of its
# symbols only the entry is visible: templates of the standard library ignore -fvisibility=hidden. EXAMPLE is not
# installed: where it is, it would be a device that every program finds.
function(xhal_plugin_output target manifest)
  set(symbols ${CMAKE_BINARY_DIR}/plugin_symbols.map)
  file(CONFIGURE OUTPUT ${symbols} CONTENT "{ global: xhal_plugin_negotiate; local: *; };\n")
  target_link_options(${target} PRIVATE -Wl,--version-script=${symbols})
  set_target_properties(${target} PROPERTIES
    LIBRARY_OUTPUT_DIRECTORY ${XHAL_PLUGIN_OUTPUT_DIRECTORY})
  # With the library, not before: a manifest without one is a plugin that cannot be loaded.
  add_custom_command(TARGET ${target} POST_BUILD
    COMMAND ${CMAKE_COMMAND} -E copy_if_different ${manifest} ${XHAL_PLUGIN_OUTPUT_DIRECTORY})
  set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS ${manifest})
  if("EXAMPLE" IN_LIST ARGN)
    return()
  endif()
  install(TARGETS ${target} LIBRARY DESTINATION ${XHAL_PLUGIN_INSTALL_DIR} COMPONENT runtime)
  install(FILES ${manifest} DESTINATION ${XHAL_PLUGIN_INSTALL_DIR} COMPONENT runtime)
endfunction()

# The target tests-<label> builds everything that the tests of a label run.
function(xhal_tests_need label)
  if(NOT TARGET tests-${label})
    add_custom_target(tests-${label})
  endif()
  add_dependencies(tests-${label} ${ARGN})
endfunction()

# One GoogleTest program. Every case becomes the ctest test `<name>.<Suite>.<Case>`, run in its own process with the
# build tree's plugins and nothing else in sight.
#
#   xhal_add_test(<name> SOURCES <file>... [LIBS <target>...] [LABELS <label>...] [ENV <key=value>...]
#                 [ARGS <argument>...] [TIMEOUT <seconds>] [RUN_SERIAL] [RESOURCE_LOCK <name>...] [WHOLE] [NO_MAIN])
#
# WHOLE runs the program as one test, `<name>`, for suites of very many small cases. NO_MAIN: it brings its own main().
# TIMEOUT (300) ends a test that hangs; it is no performance limit, and sanitizer builds get four times as much.
function(xhal_add_test name)
  cmake_parse_arguments(arg "RUN_SERIAL;WHOLE;NO_MAIN" "TIMEOUT"
    "SOURCES;LIBS;LABELS;ENV;ARGS;RESOURCE_LOCK" ${ARGN})
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "xhal_add_test(${name}): cannot place '${arg_UNPARSED_ARGUMENTS}'")
  endif()
  if(NOT BUILD_TESTING)
    return()
  endif()
  add_executable(${name} ${arg_SOURCES})
  xhal_target_defaults(${name})
  set(main GTest::gmock_main)
  if(arg_NO_MAIN)
    set(main GTest::gmock)
  endif()
  target_link_libraries(${name} PRIVATE ${arg_LIBS} ${main} Threads::Threads)
  foreach(label IN LISTS arg_LABELS)
    xhal_tests_need(${label} ${name})
  endforeach()

  set(timeout 300)
  if(arg_TIMEOUT)
    set(timeout ${arg_TIMEOUT})
  endif()
  if(XHAL_SANITIZE)
    math(EXPR timeout "${timeout} * 4")
  endif()
  set(env XHAL_PLUGIN_PATH=${XHAL_PLUGIN_OUTPUT_DIRECTORY} ${arg_ENV})

  if(arg_WHOLE)
    add_test(NAME ${name} COMMAND ${name} ${arg_ARGS})
    set_tests_properties(${name} PROPERTIES TIMEOUT ${timeout} ENVIRONMENT "${env}"
      LABELS "${arg_LABELS}" RUN_SERIAL ${arg_RUN_SERIAL} RESOURCE_LOCK "${arg_RESOURCE_LOCK}")
    return()
  endif()
  gtest_discover_tests(${name} TEST_PREFIX ${name}. TEST_LIST ${name}_CASES DISCOVERY_MODE PRE_TEST NO_PRETTY_VALUES
    DISCOVERY_TIMEOUT 60 EXTRA_ARGS ${arg_ARGS})
  # gtest_discover_tests loses the semicolons of lists in PROPERTIES; ctest reads this file right after its own.
  set(script ${CMAKE_CURRENT_BINARY_DIR}/${name}_properties.cmake)
  file(CONFIGURE OUTPUT ${script} @ONLY CONTENT [[
foreach(case IN LISTS @name@_CASES)
  set_tests_properties("${case}" PROPERTIES TIMEOUT @timeout@ ENVIRONMENT "@env@" LABELS "@arg_LABELS@"
    RUN_SERIAL @arg_RUN_SERIAL@ RESOURCE_LOCK "@arg_RESOURCE_LOCK@")
endforeach()
]])
  set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES ${script})
endfunction()

# Pytest files as the one ctest test `<name>`, with the build tree's tools, libraries, plugins and Python package in
# place. It needs the python of XHAL_TORCH_PYTHON and, without it, does not exist.
#
#   xhal_add_python_test(<name> SOURCES <file.py>... [LABELS <label>...] [ENV <key=value>...] [ARGS <argument>...]
#                        [TIMEOUT <seconds>] [RUN_SERIAL] [RESOURCE_LOCK <name>...])
function(xhal_add_python_test name)
  cmake_parse_arguments(arg "RUN_SERIAL" "TIMEOUT" "SOURCES;LABELS;ENV;ARGS;RESOURCE_LOCK" ${ARGN})
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "xhal_add_python_test(${name}): cannot place '${arg_UNPARSED_ARGUMENTS}'")
  endif()
  if(NOT BUILD_TESTING OR NOT XHAL_TORCH_PYTHON)
    return()
  endif()
  list(TRANSFORM arg_SOURCES PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/ REGEX "^[^/]")
  set(timeout 600)
  if(arg_TIMEOUT)
    set(timeout ${arg_TIMEOUT})
  endif()
  get_filename_component(python_bin ${XHAL_TORCH_PYTHON} DIRECTORY)
  add_test(NAME ${name}
    COMMAND ${XHAL_TORCH_PYTHON} -m pytest -q -p no:cacheprovider ${arg_ARGS} ${arg_SOURCES})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${timeout} LABELS "${arg_LABELS}"
    RUN_SERIAL ${arg_RUN_SERIAL} RESOURCE_LOCK "${arg_RESOURCE_LOCK}"
    ENVIRONMENT "XHAL_PLUGIN_PATH=${XHAL_PLUGIN_OUTPUT_DIRECTORY};PYTHONDONTWRITEBYTECODE=1;${arg_ENV}"
    ENVIRONMENT_MODIFICATION "PATH=path_list_prepend:${python_bin};\
PATH=path_list_prepend:${CMAKE_RUNTIME_OUTPUT_DIRECTORY};\
LD_LIBRARY_PATH=path_list_prepend:${CMAKE_LIBRARY_OUTPUT_DIRECTORY};\
PYTHONPATH=path_list_prepend:${CMAKE_BINARY_DIR}/python")
endfunction()

# Adds every folder directly below this one that has a CMakeLists.txt; one that appears later is noticed by the next
# build. SKIP names folders to leave out; ALSO, folders further down whose parents have no CMakeLists.txt.
function(xhal_add_subfolders)
  cmake_parse_arguments(arg "" "" "SKIP;ALSO" ${ARGN})
  set(patterns */CMakeLists.txt)
  foreach(folder ${arg_ALSO})
    list(APPEND patterns ${folder}/CMakeLists.txt)
  endforeach()
  file(GLOB lists CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} ${patterns})
  foreach(list ${lists})
    get_filename_component(folder ${list} DIRECTORY)
    get_filename_component(parent ${folder} DIRECTORY)
    if(NOT folder IN_LIST arg_SKIP AND NOT (parent AND "${parent}/CMakeLists.txt" IN_LIST lists))
      add_subdirectory(${folder})
    endif()
  endforeach()
endfunction()

# Installs a library and its public headers and exports it: `xhal::<target>` for find_package(xhal).
#   HEADERS <dir>...   the contents of each <dir> go to <prefix>/include (so dir is .../include)
function(xhal_install_library target)
  cmake_parse_arguments(arg "" "" "HEADERS" ${ARGN})
  set_target_properties(${target} PROPERTIES INSTALL_RPATH "$ORIGIN")
  install(TARGETS ${target} EXPORT xhal-targets
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime NAMELINK_COMPONENT dev
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT dev
    INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  foreach(dir ${arg_HEADERS})
    install(DIRECTORY ${dir}/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT dev
      FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp" PATTERN "*.inc")
  endforeach()
  set_property(GLOBAL APPEND PROPERTY XHAL_EXPORTED ${target})
endfunction()

function(xhal_install_program)
  file(RELATIVE_PATH up ${CMAKE_INSTALL_FULL_BINDIR} ${CMAKE_INSTALL_FULL_LIBDIR})
  foreach(target ${ARGN})
    set_target_properties(${target} PROPERTIES INSTALL_RPATH "$ORIGIN/${up}")
    install(TARGETS ${target} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT tools)
  endforeach()
endfunction()

# The package files: find_package(xhal) gives every exported target, pkg-config one module for each library.
function(xhal_install_package)
  get_property(exported GLOBAL PROPERTY XHAL_EXPORTED)
  if(NOT exported)
    return()
  endif()
  set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/xhal)
  set(config ${PROJECT_SOURCE_DIR}/cmake/xhal-config.cmake.in)
  configure_package_config_file(${config} ${CMAKE_BINARY_DIR}/installed/xhal-config.cmake
    INSTALL_DESTINATION ${config_dir} PATH_VARS XHAL_PLUGIN_INSTALL_DIR)
  write_basic_package_version_file(${CMAKE_BINARY_DIR}/xhal-config-version.cmake
    COMPATIBILITY SameMinorVersion)
  install(FILES ${CMAKE_BINARY_DIR}/installed/xhal-config.cmake
    ${CMAKE_BINARY_DIR}/xhal-config-version.cmake DESTINATION ${config_dir} COMPONENT dev)
  install(EXPORT xhal-targets NAMESPACE xhal:: DESTINATION ${config_dir} COMPONENT dev)

  # The build tree is a prefix too, for the project that its own `xhal plugins new` makes.
  file(RELATIVE_PATH XHAL_PLUGIN_INSTALL_DIR ${CMAKE_BINARY_DIR} ${XHAL_PLUGIN_OUTPUT_DIRECTORY})
  configure_package_config_file(${config} ${CMAKE_BINARY_DIR}/xhal-config.cmake
    INSTALL_PREFIX ${CMAKE_BINARY_DIR} INSTALL_DESTINATION ${CMAKE_BINARY_DIR}
    PATH_VARS XHAL_PLUGIN_INSTALL_DIR)
  export(EXPORT xhal-targets NAMESPACE xhal:: FILE ${CMAKE_BINARY_DIR}/xhal-targets.cmake)

  set(pc_xhal_description "One C ABI between frameworks and accelerators")
  set(pc_xcoll_description "Collective operations over xHAL devices")
  file(RELATIVE_PATH up ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
  string(REGEX REPLACE "/$" "" PC_UP "${up}")
  foreach(library xhal xcoll xtee)
    if(NOT library IN_LIST exported)
      continue()
    endif()
    set(PC_NAME ${library})
    set(PC_DESCRIPTION ${pc_${library}_description})
    set(PC_REQUIRES "")
    if(NOT library STREQUAL xhal)
      set(PC_REQUIRES "xhal = ${PROJECT_VERSION}")
    endif()
    configure_file(${PROJECT_SOURCE_DIR}/cmake/module.pc.in ${CMAKE_BINARY_DIR}/${library}.pc @ONLY)
    install(FILES ${CMAKE_BINARY_DIR}/${library}.pc
      DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT dev)
  endforeach()
endfunction()
