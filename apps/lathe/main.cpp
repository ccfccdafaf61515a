// Exit codes: 0 done, 1 failed while running, 2 bad input (nothing was started or written).
#include <exception>
#include <new>

#include "core/error.h"
#include "lathe/command_line.h"
#include "lathe/process.h"

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
  } catch (const std::exception& error) {
    lathe::print_error_line(error.what());
  }
  return 1;
}
