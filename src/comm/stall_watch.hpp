// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <mpi.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "fsllm/comm/stall.hpp"

namespace fsllm {

/// Where the ranks of the world meet, and who makes the others wait. Ranks tell ranks 0 and 1 now and then
/// what they do, in small messages that nobody waits for; of the ranks that wait, rank 0 names those that do
/// not, or rank 1 if rank 0 is one of these. Only the main thread speaks (MPI_THREAD_FUNNELED).
class StallWatch {
 public:
  using Clock = std::chrono::steady_clock;

  /// Collective.
  StallWatch();
  StallWatch(StallWatch const&) = delete;
  StallWatch& operator=(StallWatch const&) = delete;

  /// Collective: returns when every rank has come.
  void meet();
  /// Returns when all requests are complete. Sleeps while it waits, unlike MPI's own calls.
  void wait(std::span<MPI_Request> requests);
  void set_activity(std::string const& text);
  int64_t share_progress(int64_t round, int64_t done);
  void set_warning(double seconds) { warning_ = seconds; }
  /// Collective: no message is under way any more.
  void close();

 private:
  /// What a rank tells of itself.
  struct Word {
    int64_t meetings = 0;          ///< that it has come to
    int64_t waits = 0;             ///< 1: it waits, as it tells this
    int64_t since_ms = 0;          ///< of the system's clock: when its activity began
    int64_t round = -1, done = 0;  ///< steps of this round
    char activity[104] = {};
  };
  struct Outgoing {
    Word word;
    MPI_Request request = MPI_REQUEST_NULL;
    int64_t sent = 0;
  };

  bool tell(int observer);
  void tell_observers();
  void listen();
  void report(double waited);
  bool observes() const { return rank_ < static_cast<int>(to_.size()); }

  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1;
  double warning_ = 60;
  bool is_watched_ = false;  ///< somebody sees rank 0's progress
  Clock::time_point shared_;
  Word own_;
  std::array<Outgoing, 2> to_;
  Clock::time_point told_;  ///< when the observers heard last
  bool told_since_meeting_ = false;
  std::vector<std::string> hosts_;  ///< of the ranks
  std::vector<Word> words_;         ///< observers: the last one of each rank
  int64_t heard_ = 0;
};

/// That of this process, while there is a session of MPI; else null.
StallWatch* stall_watch();
/// Collective.
void start_stall_watch();
void end_stall_watch();

}  // namespace fsllm
