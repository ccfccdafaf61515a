#include "lathe/process.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>

#include "core/error.h"

namespace lathe {
namespace {

constexpr const char* kRestarted = "LATHE_RESTARTED";

volatile std::sig_atomic_t g_stdout_closed = 0;  // written by the signal handler, which can be given nothing

// Calls only what POSIX allows in a signal handler.
void replace_closed_pipes(int) {
  const int saved_errno = errno;
  std::array<pollfd, 2> streams{pollfd{STDOUT_FILENO, 0, 0}, pollfd{STDERR_FILENO, 0, 0}};
  if (::poll(streams.data(), streams.size(), 0) > 0) {
    const int nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    for (const pollfd& stream : streams)
      if ((stream.revents & POLLERR) != 0 && nowhere >= 0) {
        ::dup2(nowhere, stream.fd);
        if (stream.fd == STDOUT_FILENO) g_stdout_closed = 1;
      }
    if (nowhere >= 0) ::close(nowhere);
  }
  errno = saved_errno;
}

[[noreturn]] void report_and_exit() {
  try {
    if (const std::exception_ptr error = std::current_exception()) std::rethrow_exception(error);
    print_error_line("terminated without an exception");
  } catch (const std::bad_alloc&) {
    print_error_line("out of memory");
  } catch (const std::exception& error) {
    print_error_line(error.what());
  } catch (...) {
    print_error_line("unknown exception");
  }
  std::_Exit(1);
}

}  // namespace

void restart_with_short_spinning(char* const argv[]) {
  for (const char* set_already : {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY", kRestarted})
    if (std::getenv(set_already) != nullptr) return;
  ::setenv(kRestarted, "1", 1);
  // Beside a busy neighbour libgomp's default spinning costs 3-100x; 3000 rounds cost nothing on an idle machine.
  ::setenv("GOMP_SPINCOUNT", "3000", 1);
  ::execv("/proc/self/exe", argv);
}

void outlive_closed_pipes() {
  struct sigaction action {};
  action.sa_handler = replace_closed_pipes;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGPIPE, &action, nullptr);
}

bool stdout_has_no_reader() { return g_stdout_closed != 0; }

void flush_stdout() {
  const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  check(written || stdout_has_no_reader(), "stdout: writing failed: {}", std::strerror(errno));
}

void report_uncaught_exceptions() { std::set_terminate(report_and_exit); }

void print_error_line(std::string_view message) {
  std::string line = "lathe: error: ";
  for (const char c : message) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n')
      line += "\\n";
    else if (byte < 0x20 || byte == 0x7f)
      line += fmt::format("\\x{:02x}", byte);
    else
      line += c;
  }
  line += '\n';
  std::fflush(stdout);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace lathe
