// The command line: the only place that knows the names of commands and flags. CLI11 is seen by command_line.cpp alone.
#pragma once

#include <functional>

namespace lathe {

// What the arguments ask for, ready to run; the result is the exit code. Throws InputError for arguments that ask for
// nothing. `--help` and `--version` are commands like any other here.
std::function<int()> parse_command_line(int argc, const char* const* argv);

}  // namespace lathe
