// What the process arranges with the system before any work.
#pragma once

#include <string>
#include <string_view>

namespace lathe {

// libgomp reads its environment when it is loaded, so the variable is set by starting this program anew, once.
// Returns only if nothing is to be set or the system refuses.
void restart_with_short_spinning(char* const argv[]);

// When the reader of stdout or stderr has gone, what follows is written to nowhere and the work goes on.
void outlive_closed_pipes();
// Whether that has happened to stdout: what only writes there may stop early.
bool stdout_has_no_reader();

// Throws Error if something written to stdout was lost (a full disk), other than to a reader that has gone.
void flush_stdout();

// Turns an exception that nobody can catch (thrown in a thread, say) into the one line of an error and exit code 1.
void report_uncaught_exceptions();

// "lathe: error: MESSAGE" on stderr, always one line: control characters are escaped.
void print_error_line(std::string_view message);

}  // namespace lathe
