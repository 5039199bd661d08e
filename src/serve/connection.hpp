// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <httplib.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <string>

#include "fsllm/serve/http_server.hpp"

namespace fsllm::detail {

/// One client's socket, as cpp-httplib reads and writes it. The library bounds neither the bytes of a head
/// nor the time that a request may take to arrive; this does.
class Connection final : public httplib::Stream {
 public:
  Connection(int socket, HttpLimits const& limits) : socket_(socket), limits_(limits) {}
  ~Connection();
  Connection(Connection const&) = delete;

  /// Waits for the first byte of a request; false: the client has gone, or was silent for so long.
  bool wait_for_request(std::chrono::milliseconds patience);
  /// From here on a head is read, and a body from there.
  void begin_head();
  void begin_body();
  /// A status that cpp-httplib does not know of: 408 or 431; 0: none. Reads fail from then on, and writes do
  /// nothing.
  int refused() const { return refused_; }
  bool head_begun() const { return head_bytes_ > 0; }
  /// Writes past a refusal.
  void write_all(std::string const& bytes);
  /// Has the client hung up?
  bool gone() const;
  void close_after_answer() { closes_ = true; }
  bool closes() const { return closes_; }
  /// Says that nothing more comes and reads what is under way: bytes that nobody reads would turn into a
  /// reset, in which the client loses the answer.
  void linger();
  int descriptor() const { return socket_; }

  // Not marked as overriding: versions of cpp-httplib differ in what a stream has.
  bool is_readable() const { return begin_ < end_ || ready(kRead, limits_.body_time); }
  bool is_writable() const { return ready(kWrite, limits_.write_time); }
  bool wait_readable() const { return is_readable(); }
  bool wait_writable() const { return is_writable(); }
  bool is_peer_alive() const { return !gone(); }
  time_t duration() const { return 0; }
  ssize_t read(char* into, size_t size);
  ssize_t write(char const* from, size_t size);
  void get_remote_ip_and_port(std::string&, int&) const {}
  void get_local_ip_and_port(std::string&, int&) const {}
  socket_t socket() const { return socket_; }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr short kRead = 1, kWrite = 4;  // POLLIN, POLLOUT
  bool ready(short what, std::chrono::milliseconds patience) const;
  bool send_all(char const* from, size_t size);
  bool fill();

  int socket_;
  HttpLimits const& limits_;
  std::array<char, 16384> buffer_;
  size_t begin_ = 0, end_ = 0;
  bool in_head_ = true, closes_ = false;
  size_t head_bytes_ = 0;
  int refused_ = 0;
  Clock::time_point deadline_ = Clock::now();
};

}  // namespace fsllm::detail
