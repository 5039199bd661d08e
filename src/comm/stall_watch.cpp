// SPDX-License-Identifier: Apache-2.0
#include "stall_watch.hpp"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <thread>

#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/process.hpp"
#include "mpi.hpp"

namespace fsllm {
namespace {

using Clock = StallWatch::Clock;

constexpr size_t kNamed = 8;  ///< ranks that a warning names
constexpr size_t kHostBytes = 64;
constexpr double kSecondsUnshared = 0.5;  ///< between two words about progress
constexpr double kSecondsUnheard = 10;    ///< between two words of a rank at work, at most

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

int64_t system_ms() {
  auto const now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

/// The longer the wait, the more of the processor is left to those that work.
void pause(double waited) {
  if (waited < 2e-4) return;
  if (waited < 0.02)
    ::sched_yield();
  else
    std::this_thread::sleep_for(std::chrono::microseconds(waited < 1 ? 100 : 1000));
}

std::vector<std::string> gather_hosts(MPI_Comm comm, int size) {
  auto own = host_name();
  own.resize(kHostBytes, '\0');
  std::string all(kHostBytes * static_cast<size_t>(size), '\0');
  check_mpi(MPI_Allgather(own.data(), kHostBytes, MPI_CHAR, all.data(), kHostBytes, MPI_CHAR, comm),
            "MPI_Allgather");
  std::vector<std::string> hosts;
  for (size_t at = 0; at < all.size(); at += kHostBytes) {
    auto const host = all.substr(at, kHostBytes);
    hosts.push_back(host.substr(0, host.find('\0')));
  }
  return hosts;
}

std::unique_ptr<StallWatch> watch;

}  // namespace

StallWatch::StallWatch() {
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &comm_), "MPI_Comm_dup");
  check_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
  hosts_ = gather_hosts(comm_, size_);
  if (observes()) words_.resize(static_cast<size_t>(size_));
  int watched = output_is_terminal() && shows_info() ? 1 : 0;
  check_mpi(MPI_Bcast(&watched, 1, MPI_INT, 0, comm_), "MPI_Bcast");
  is_watched_ = watched != 0;
  set_activity("starting");
}

void StallWatch::set_activity(std::string const& text) {
  if (size_ == 1 || warning_ <= 0) return;
  auto const end = std::copy_n(text.begin(), std::min(text.size(), sizeof own_.activity - 1), own_.activity);
  std::fill(end, std::end(own_.activity), '\0');
  own_.since_ms = system_ms();
  double const interval = std::min(kSecondsUnheard, warning_ / 4);
  if (!told_since_meeting_ || seconds_since(told_) >= interval) tell_observers();
}

int64_t StallWatch::share_progress(int64_t round, int64_t done) {
  if (size_ == 1 || !is_watched_) return 0;
  own_.round = round;
  own_.done = done;
  if (rank_ != 0) {
    // A thousand ranks tell rank 0 a hundred words a second.
    double const interval = std::max(kSecondsUnshared, static_cast<double>(size_) / 100);
    if (seconds_since(shared_) >= interval && tell(0)) shared_ = Clock::now();
    return 0;
  }
  listen();
  int64_t others = 0;
  for (size_t rank = 1; rank < words_.size(); ++rank)
    others += words_[rank].round == round ? words_[rank].done : 0;
  return others;
}

void StallWatch::tell_observers() {
  told_ = Clock::now();
  told_since_meeting_ = true;
  for (int observer = 0; observer < static_cast<int>(to_.size()); ++observer) tell(observer);
}

/// False where the last word is still under way.
bool StallWatch::tell(int observer) {
  if (observer >= size_ || observer == rank_) return true;
  auto& to = to_[static_cast<size_t>(observer)];
  int free = 1;
  check_mpi(MPI_Test(&to.request, &free, MPI_STATUS_IGNORE), "MPI_Test");
  if (free == 0) return false;
  to.word = own_;
  check_mpi(MPI_Isend(&to.word, sizeof to.word, MPI_BYTE, observer, 0, comm_, &to.request), "MPI_Isend");
  ++to.sent;
  return true;
}

void StallWatch::listen() {
  for (;;) {
    int there = 0;
    MPI_Status status;
    check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, 0, comm_, &there, &status), "MPI_Iprobe");
    if (there == 0) return;
    auto& word = words_[static_cast<size_t>(status.MPI_SOURCE)];
    check_mpi(MPI_Recv(&word, sizeof word, MPI_BYTE, status.MPI_SOURCE, 0, comm_, MPI_STATUS_IGNORE),
              "MPI_Recv");
    ++heard_;
  }
}

void StallWatch::meet() {
  ++own_.meetings;
  told_since_meeting_ = false;
  if (size_ == 1) return;
  MPI_Request barrier = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibarrier(comm_, &barrier), "MPI_Barrier");
  wait({&barrier, 1});
}

void StallWatch::wait(std::span<MPI_Request> requests) {
  if (size_ > 1 && observes()) listen();
  auto const start = Clock::now();
  std::array<bool, 2> know{};
  double warn_at = warning_;
  own_.waits = 1;
  for (int done = 0;;) {
    check_mpi(MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE),
              "MPI_Testall");
    if (done != 0) break;
    double const waited = seconds_since(start);
    pause(waited);
    if (warning_ <= 0 || size_ == 1 || waited < std::min(1.0, warning_ / 4)) continue;
    for (size_t i = 0; i < know.size(); ++i) know[i] = know[i] || tell(static_cast<int>(i));
    if (!observes()) continue;
    listen();
    if (waited < warn_at) continue;
    warn_at *= 2;
    report(waited);
  }
  own_.waits = 0;
}

/// Names those that do not wait here too. Says nothing on rank 1 where rank 0 waits, and says it.
void StallWatch::report(double waited) {
  std::vector<size_t> missing;
  for (size_t rank = 0; rank < words_.size(); ++rank)
    if (static_cast<int>(rank) != rank_ && (words_[rank].waits == 0 || words_[rank].meetings < own_.meetings))
      missing.push_back(rank);
  if (missing.empty() || (rank_ != 0 && missing.front() != 0)) return;
  for (size_t i = 0; i < std::min(kNamed, missing.size()); ++i) {
    auto const& word = words_[missing[i]];
    double const busy = static_cast<double>(std::max<int64_t>(0, system_ms() - word.since_ms)) / 1000;
    log_warning("rank {} on {} has let the others wait for {:.0f} s: {} (for {:.0f} s)", missing[i],
                hosts_[missing[i]], waited, word.activity, busy);
  }
  if (missing.size() > kNamed) log_warning("{} more ranks let the others wait", missing.size() - kNamed);
}

void StallWatch::close() {
  for (int observer = 0; observer < std::min<int>(size_, std::ssize(to_)); ++observer) {
    int64_t all = 0;
    check_mpi(
        MPI_Reduce(&to_[static_cast<size_t>(observer)].sent, &all, 1, MPI_INT64_T, MPI_SUM, observer, comm_),
        "MPI_Reduce");
    while (rank_ == observer && heard_ < all) listen();
  }
  for (auto& to : to_) check_mpi(MPI_Wait(&to.request, MPI_STATUS_IGNORE), "MPI_Wait");
  check_mpi(MPI_Comm_free(&comm_), "MPI_Comm_free");
}

void complete(std::span<MPI_Request> requests) {
  if (watch)
    watch->wait(requests);
  else
    check_mpi(MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE),
              "MPI_Waitall");
}

StallWatch* stall_watch() {
  return watch.get();
}

void start_stall_watch() {
  watch = std::make_unique<StallWatch>();
}

void end_stall_watch() {
  watch->close();
  watch.reset();
}

void set_activity(std::string const& text) {
  if (!text.empty()) log_debug("{}", text);
  if (watch) watch->set_activity(text);
}

int64_t share_progress(int64_t round, int64_t done) {
  return watch ? watch->share_progress(round, done) : 0;
}

void set_stall_warning(double seconds) {
  if (watch) watch->set_warning(seconds);
}

}  // namespace fsllm
