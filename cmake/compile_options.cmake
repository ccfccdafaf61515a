# Flags of our own code. NaN and infinity keep their meaning (no -ffast-math): they are looked for.
add_library(lathe_options INTERFACE)
target_include_directories(lathe_options INTERFACE ${PROJECT_SOURCE_DIR}/src)
target_compile_definitions(lathe_options INTERFACE LATHE_VERSION="${PROJECT_VERSION}")

set(host_flags
  -Wall -Wextra -Wconversion -Wshadow -Werror
  -Wno-missing-field-initializers  # ops are called with designated initializers that leave optional tensors out
  -fno-math-errno -fno-trapping-math -fopenmp-simd
  $<$<CONFIG:Release>:-O3>)
if(LATHE_PORTABLE)
  list(APPEND host_flags -march=x86-64-v3)
elseif(LATHE_NATIVE)
  # 512-bit registers pay on every processor that has them and that we measured.
  list(APPEND host_flags -march=native -mprefer-vector-width=512)
endif()
if(LATHE_SANITIZE)
  # GCC 12 sees uninitialized memory in std::variant under the sanitizers where there is none.
  list(APPEND host_flags -fsanitize=address,undefined -fno-sanitize-recover=all -g -O1 -Wno-maybe-uninitialized)
  target_link_options(lathe_options INTERFACE -fsanitize=address,undefined)
endif()

# Hopper's wgmma and tensor copies exist for 90a only. -Wconversion is left out: the host compiler would see all device
# code, where narrowing is what a kernel does.
set(lathe_cuda_architectures 90a)
set(cuda_flags
  -gencode=arch=compute_${lathe_cuda_architectures},code=sm_${lathe_cuda_architectures} -lineinfo
  -Werror=all-warnings -Xcompiler=-Wall,-Wextra,-Wshadow,-Werror,-Wno-missing-field-initializers)
target_compile_options(lathe_options INTERFACE
  "$<$<COMPILE_LANGUAGE:C,CXX>:${host_flags}>" "$<$<COMPILE_LANGUAGE:CUDA>:${cuda_flags}>")

# lathe_library(NAME SOURCES ... USES ...): one static library a folder.
function(lathe_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;USES" ${ARGN})
  add_library(lathe_${name} STATIC ${ARG_SOURCES})
  target_link_libraries(lathe_${name} PUBLIC lathe_options ${ARG_USES})
endfunction()
