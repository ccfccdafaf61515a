# Debian packages, by name; `make deps` installs them. Nothing is downloaded at configure time.
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(fmt REQUIRED)
# Debian has fmt as a shared library only; a portable liblathe.so carries it inside.
set(lathe_fmt fmt::fmt$<$<BOOL:${LATHE_PORTABLE}>:-header-only>)
find_package(nlohmann_json 3.10 REQUIRED)
find_package(CLI11 REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(tomlplusplus REQUIRED IMPORTED_TARGET tomlplusplus)
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(zstd REQUIRED IMPORTED_TARGET libzstd)
pkg_check_modules(pcre2 REQUIRED IMPORTED_TARGET libpcre2-8)

# oneDNN is optional: a plain loop stands in for its matrix products. Found by hand: its own CMake file asks for OpenCL's
# headers, which nothing here needs. Portable programs go without: another machine may lack it.
find_path(DNNL_INCLUDE_DIR oneapi/dnnl/dnnl.h)
find_library(DNNL_LIBRARY dnnl)
if(LATHE_PORTABLE)
  message(STATUS "oneDNN is left out: LATHE_PORTABLE")
elseif(DNNL_INCLUDE_DIR AND DNNL_LIBRARY)
  set(dnnl_FOUND TRUE)
  add_library(DNNL::dnnl UNKNOWN IMPORTED)
  set_target_properties(DNNL::dnnl PROPERTIES
    IMPORTED_LOCATION ${DNNL_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${DNNL_INCLUDE_DIR})
else()
  message(WARNING "oneDNN (libdnnl-dev) not found: matrix products run in a plain loop, many times slower")
endif()
