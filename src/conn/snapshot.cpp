// SPDX-License-Identifier: MIT
#include <tcpmig/snapshot.hpp>

namespace tcpmig {

std::string to_string(TcpState state) {
  switch (state) {
    case TcpState::kEstablished:
      return "ESTABLISHED";
    case TcpState::kFinWait1:
      return "FIN_WAIT1";
    case TcpState::kFinWait2:
      return "FIN_WAIT2";
    case TcpState::kCloseWait:
      return "CLOSE_WAIT";
    case TcpState::kLastAck:
      return "LAST_ACK";
    case TcpState::kClosing:
      return "CLOSING";
  }
  return "unknown state";
}

std::optional<TcpState> to_tcp_state(std::uint8_t number) {
  switch (static_cast<TcpState>(number)) {
    case TcpState::kEstablished:
    case TcpState::kFinWait1:
    case TcpState::kFinWait2:
    case TcpState::kCloseWait:
    case TcpState::kLastAck:
    case TcpState::kClosing:
      return static_cast<TcpState>(number);
  }
  return std::nullopt;
}

}  // namespace tcpmig
