// SPDX-License-Identifier: MIT
#include "lab/interrupt.hpp"

namespace tcpmig::lab {
namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP};
volatile sig_atomic_t noted = 0;
int nesting = 0;

void note(int /*number*/) { noted = 1; }

}  // namespace

CatchInterrupts::CatchInterrupts() {
  if (nesting++ == 0) noted = 0;
  struct sigaction action{};
  action.sa_handler = note;  // no SA_RESTART: waits end early
  sigemptyset(&action.sa_mask);
  for (int i = 0; i < 3; ++i) ::sigaction(kSignals[i], &action, &previous_[i]);
}

CatchInterrupts::~CatchInterrupts() {
  --nesting;
  for (int i = 0; i < 3; ++i) ::sigaction(kSignals[i], &previous_[i], nullptr);
}

bool interrupted() noexcept { return noted != 0; }

void throw_if_interrupted() {
  if (interrupted()) throw Interrupted();
}

}  // namespace tcpmig::lab
