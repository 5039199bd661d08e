// SPDX-License-Identifier: Apache-2.0
#include "connection.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace fsllm::detail {

using std::chrono::milliseconds;

namespace {

milliseconds left_until(std::chrono::steady_clock::time_point deadline) {
  return std::max(milliseconds(0),
                  std::chrono::duration_cast<milliseconds>(deadline - std::chrono::steady_clock::now()));
}

}  // namespace

Connection::~Connection() {
  ::close(socket_);
}

bool Connection::ready(short what, milliseconds patience) const {
  pollfd each{socket_, what, 0};
  int found = 0;
  do {
    found = ::poll(&each, 1, static_cast<int>(patience.count()));
  } while (found < 0 && errno == EINTR);
  return found > 0 && (each.revents & (what | POLLHUP | POLLERR)) != 0;
}

bool Connection::wait_for_request(milliseconds patience) {
  return begin_ < end_ || (ready(kRead, patience) && !gone());
}

void Connection::begin_head() {
  in_head_ = true;
  head_bytes_ = 0;
  deadline_ = Clock::now() + limits_.head_time;
}

void Connection::begin_body() {
  in_head_ = false;
  deadline_ = Clock::now() + limits_.body_time;
}

bool Connection::gone() const {
  char byte = 0;
  auto const count = ::recv(socket_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return count == 0 || (count < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

/// Reads what has come; false: nothing did until the deadline, or nothing more will.
bool Connection::fill() {
  for (;;) {
    if (!ready(kRead, left_until(deadline_))) {
      refused_ = 408;
      return false;
    }
    auto const count = ::recv(socket_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (count > 0) {
      begin_ = 0;
      end_ = static_cast<size_t>(count);
      return true;
    }
    if (count == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) return false;
  }
}

ssize_t Connection::read(char* into, size_t size) {
  if (refused_ != 0) return -1;
  if (begin_ == end_ && !fill()) return refused_ != 0 ? -1 : 0;
  auto const count = std::min(size, end_ - begin_);
  if (in_head_ && (head_bytes_ += count) > limits_.head_bytes) {
    refused_ = 431;
    return -1;
  }
  std::memcpy(into, buffer_.data() + begin_, count);
  begin_ += count;
  return static_cast<ssize_t>(count);
}

bool Connection::send_all(char const* from, size_t size) {
  while (size > 0) {
    if (!ready(kWrite, limits_.write_time)) return false;
    auto const count = ::send(socket_, from, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) return false;
    if (count <= 0) continue;
    from += count;
    size -= static_cast<size_t>(count);
  }
  return true;
}

ssize_t Connection::write(char const* from, size_t size) {
  if (refused_ != 0) return static_cast<ssize_t>(size);
  if (send_all(from, size)) return static_cast<ssize_t>(size);
  closes_ = true;
  return -1;
}

void Connection::write_all(std::string const& bytes) {
  send_all(bytes.data(), bytes.size());
}

void Connection::linger() {
  ::shutdown(socket_, SHUT_WR);
  auto const deadline = Clock::now() + limits_.linger_time;
  while (ready(kRead, left_until(deadline)) && Clock::now() < deadline)
    if (::recv(socket_, buffer_.data(), buffer_.size(), MSG_DONTWAIT) <= 0) break;
}

}  // namespace fsllm::detail
