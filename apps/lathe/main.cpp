// Exit codes: 0 done, 1 failed while running, 2 bad input (nothing was started or written).
#include <exception>
#include <filesystem>
#include <new>
#include <string>
#include <system_error>

#include "core/error.h"
#include "lathe/command_line.h"
#include "lathe/process.h"

namespace {

// Errors that a path given by the user has wherever it is used.
bool is_of_the_path(const std::error_code& code) {
  return code == std::errc::filename_too_long || code == std::errc::too_many_symbolic_link_levels;
}

}  // namespace

int main(int argc, char** argv) {
  lathe::restart_with_short_spinning(argv);
  lathe::report_uncaught_exceptions();
  lathe::outlive_closed_pipes();
  try {
    const int exit_code = lathe::parse_command_line(argc, argv)();
    lathe::flush_stdout();
    return exit_code;
  } catch (const lathe::InputError& error) {
    lathe::print_error_line(error.what());
    return 2;
  } catch (const std::bad_alloc&) {
    lathe::print_error_line("out of memory");
  } catch (const std::filesystem::filesystem_error& error) {
    const std::string path = error.path1().string();
    lathe::print_error_line(path + ": " + error.code().message());
    if (is_of_the_path(error.code())) return 2;
  } catch (const std::exception& error) {
    lathe::print_error_line(error.what());
  }
  return 1;
}
