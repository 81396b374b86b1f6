// SPDX-License-Identifier: MIT
#pragma once
#include <optional>

#include "sim/network.hpp"
#include "switch/caught.hpp"

namespace tcpmig::sim {

/// The switch's process: it asks after flows that are caught in a transfer, ends the connections that nobody will answer any more,
/// takes dead dispatchers out, sweeps, and tells nodes that a flow is not theirs. What it decides is decided by src/switch and by the
/// program `reap`; here is when it looks. It may be killed: the data path goes on without it.
class SwitchRun {
 public:
  explicit SwitchRun(Network& network) : network_(network) {}
  /// A COMMIT was applied: its flow is looked at in due time.
  void committed();
  /// The programs may have said something.
  void read_revocations();
  void dispatcher_died();
  void kill();

 private:
  /// Later, if this process is still there.
  template <typename What>
  void soon(Millis delay, What what) {
    network_.after(delay, [this, run = run_, what] {
      if (up_ && run == run_) what();
    });
  }
  void look();
  void ask();
  void watch();
  void orphaned(Millis before);
  void reap(abi::reap_request request);
  void tell(const sim_revocation& told);

  Network& network_;
  bool up_ = true;
  unsigned run_ = 0;
  bool look_due_ = false;
  std::optional<steering::Question> question_;
  bool let_go_ = false;          ///< a silent dispatcher's clients
  std::optional<Millis> since_;  ///< the instance of it whose predecessor's clients were ended
  struct Revocation {
    sim_revocation told;
    Millis when;
  };
  std::optional<Revocation> waiting_;  ///< in the ring buffer, while nobody reads
};

}  // namespace tcpmig::sim
