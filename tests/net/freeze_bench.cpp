// SPDX-License-Identifier: MIT
#include "freeze_bench.hpp"

#include <iterator>

namespace freeze_test {

/// The unmodified process. Its connection is descriptor 0; it says what becomes of it, line by line.
const char* const kVictim = R"(
import os, select, socket, sys, time
s = socket.socket(fileno=0)
mode = sys.argv[1]
say = lambda *words: print(*words, flush=True)
say("ready")
sent = 0
try:
    if mode == "poll":
        p = select.poll(); p.register(s, select.POLLIN); p.poll()
    if mode == "epoll":
        p = select.epoll(); p.register(s, select.EPOLLIN); p.poll()
    if mode == "select":
        select.select([s], [], [])
    if mode == "sleep":  # reads nothing until then
        while os.path.exists(sys.argv[2]): time.sleep(0.01)
    if mode == "send":
        while True: sent += s.send(bytes((sent + i) % 251 for i in range(5000)))
    while True:
        data = s.recv(1000)
        if not data: break
        say("read", data.decode())
except OSError as error: say("error", error.errno)
say("then", len(s.recv(10)))
try: s.send(b"x"); say("sent")
except OSError as error: say("send error", error.errno)
say("total", sent)
s.close()
say("closed")
)";

std::string read_text(const std::filesystem::path& file) {
  std::ifstream input(file);
  return {std::istreambuf_iterator<char>(input), {}};
}

}  // namespace freeze_test
