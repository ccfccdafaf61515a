# CUDA is optional: without nvcc, on the PATH or in /usr/local/cuda, the build has the CPU only.
include(CheckLanguage)
find_program(LATHE_NVCC nvcc HINTS /usr/local/cuda/bin)
if(LATHE_NVCC AND NOT DEFINED ENV{CUDACXX})
  set(ENV{CUDACXX} ${LATHE_NVCC})
endif()
set(CMAKE_CUDA_ARCHITECTURES OFF)  # cmake/compile_options.cmake names it: CMake 3.25 does not know 90a
check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
  option(LATHE_CUDA "Build the CUDA kernels and device" ON)
else()
  option(LATHE_CUDA "Build the CUDA kernels and device" OFF)
endif()

if(LATHE_CUDA)
  enable_language(CUDA)
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_EXTENSIONS OFF)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)  # which CMake 3.25 does not know of nvcc
  find_package(CUDAToolkit REQUIRED)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/cmake/ptxas_gate.py)
endif()
