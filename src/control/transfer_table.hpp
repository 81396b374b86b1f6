// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

/// The transfer as a table: in which state which event leads to which step. TransferMachine carries it out.
namespace tcpmig::control {

/// Of the sender of a transfer. The last two are ends.
enum class TransferState : std::uint8_t {
  kOffered,  ///< COMMIT sent, nothing certain yet
  kAborting,  ///< silence; the request may not run twice: the server is asked never to open this generation
  kTakingBack,  ///< COMMIT to ourselves
  kMoved,       ///< the server has it
  kReturned,    ///< it is ours again, or never left
};

enum class TransferEvent : std::uint8_t {
  // said by the server of the present attempt
  kResumed,
  kRefused,
  kAborted,
  kMissing,
  // said by the switch
  kTakenBack,
  kSpoke,
  kStale,
  kNotEntitled,
  kFull,
  kUnknown,  ///< node or service
  kReplay,
  kOtherBoot,  ///< it has lost its table since the transfer began
  // of the clock
  kRepeat,
  kDeadline,
  kCount,
};

enum class TransferStep : std::uint8_t {
  kNothing,
  kMove,        ///< the end: MOVED
  kNext,        ///< offer it to the next server; if there is none, take it back
  kGiveUp,      ///< no server can help: take it back
  kNoAnswer,    ///< the server may or may not have opened it: take it back
  kRenumber,    ///< the same again, above the generation that the switch knows; a few times at most
  kResend,      ///< the parts that were asked for
  kRepeat,      ///< the last COMMIT
  kAbortAgain,  ///< the ABORT
  kAsk,         ///< only the server can know: ABORTING, whatever the request
  kLeave,  ///< RETURNED if no attempt can have been opened, else MOVED: nobody knows, so nothing is said
  kSilence,  ///< ABORT; then kNext where the request is idempotent, else ABORTING
  kReturn,   ///< the end: RETURNED
  kEnd,      ///< RETURNED, or kLeave where the switch has lost its table
  kJudge,    ///< RETURNED if the flow never moved, else MOVED: it has moved on and ended
};

struct TransferRow {
  TransferEvent event;
  std::array<TransferStep, 3> in;  ///< by state
};

// clang-format off
inline constexpr std::array<TransferRow, static_cast<std::size_t>(TransferEvent::kCount)> kTransferTable = [] {
  using enum TransferEvent;
  using S = TransferStep;
  return std::array<TransferRow, static_cast<std::size_t>(kCount)>{{
    //                 OFFERED        ABORTING        TAKING BACK
    {kResumed,     {S::kMove,      S::kMove,        S::kNothing}},  // taking back: the switch is the judge
    {kRefused,     {S::kNext,      S::kNext,        S::kNothing}},
    {kAborted,     {S::kNothing,   S::kNext,        S::kNothing}},
    {kMissing,     {S::kResend,    S::kNothing,     S::kNothing}},
    {kTakenBack,   {S::kNothing,   S::kNothing,     S::kReturn}},
    {kSpoke,       {S::kMove,      S::kMove,        S::kMove}},
    {kStale,       {S::kRenumber,  S::kRenumber,    S::kRenumber}},
    {kNotEntitled, {S::kGiveUp,    S::kGiveUp,      S::kJudge}},
    {kFull,        {S::kGiveUp,    S::kGiveUp,      S::kReturn}},   // there is no entry: it never moved
    {kUnknown,     {S::kNext,      S::kNext,        S::kReturn}},
    {kReplay,      {S::kNothing,   S::kNothing,     S::kNothing}},  // the repeat has a new number
    {kOtherBoot,   {S::kAsk,       S::kNothing,     S::kLeave}},
    {kRepeat,      {S::kRepeat,    S::kAbortAgain,  S::kRepeat}},
    {kDeadline,    {S::kSilence,   S::kNoAnswer,    S::kEnd}},      // taking back: the switch is silent
  }};
}();
// clang-format on

/// `state` is not an end.
constexpr TransferStep transfer_step(TransferState state, TransferEvent event) {
  return kTransferTable[static_cast<std::size_t>(event)].in[static_cast<std::size_t>(state)];
}

static_assert([] {
  for (std::size_t i = 0; i < kTransferTable.size(); ++i)
    if (static_cast<std::size_t>(kTransferTable[i].event) != i) return false;
  return true;
}());

}  // namespace tcpmig::control
