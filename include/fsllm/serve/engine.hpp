// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "fsllm/model/running_batch.hpp"
#include "fsllm/serve/completion_request.hpp"
#include "fsllm/serve/served_model.hpp"

namespace fsllm {

/// The rows of one request while they are being continued; made by Engine::submit(), read by one thread.
class Generation {
 public:
  Generation(size_t model, std::vector<GenerateRow> rows);

  /// What has come since the last call, `row` being the row's number in the request; waits for something at
  /// most so long. A failure of the engine is an HttpError.
  std::vector<NewTokenEvent> wait(std::chrono::milliseconds patience);
  /// Tokens of this row, or of all, are not wanted any more.
  void leave(size_t row) { left_[row] = true; }
  void leave();

 private:
  friend class Engine;
  void give(NewTokenEvent event);
  void fail(HttpError const& error);

  size_t model_;
  std::vector<GenerateRow> rows_;
  std::vector<std::atomic<bool>> left_;
  std::mutex mutex_;
  std::condition_variable news_;
  std::vector<NewTokenEvent> events_;
  std::optional<HttpError> error_;
};

struct EngineOptions {
  RunningBatchOptions batch;
  int64_t most_rows = 2048;  ///< running and waiting
};

/// The one thread that computes. Rows of all requests run in one batch, which they join and leave between
/// forward passes. One model (adapter) is in use at a time: while requests for another wait, the batch runs
/// dry, then the model of the oldest is put in and all that wait for it join.
class Engine {
 public:
  /// Both must outlive it.
  Engine(ModelSession& session, std::vector<ServedModel> const& models, EngineOptions options);
  ~Engine() { stop(std::chrono::milliseconds(0)); }

  /// Too many rows, or an end that has begun, are HttpErrors of status 503.
  std::shared_ptr<Generation> submit(size_t model, std::vector<GenerateRow> rows);
  /// Refuses new requests, lets those there finish for so long, and fails the rest.
  void stop(std::chrono::milliseconds grace);

 private:
  struct Running {
    std::shared_ptr<Generation> generation;
    size_t row = 0;
  };
  void run();
  std::vector<std::shared_ptr<Generation>> next_to_join();
  void join(std::shared_ptr<Generation> const& generation);
  void dismiss_left();
  void step();
  void deliver(NewTokenEvent event);
  void fail_all(HttpError const& error);
  void forget(int64_t rows);

  ModelSession& session_;
  std::vector<ServedModel> const& models_;
  EngineOptions options_;
  std::unique_ptr<RunningBatch> batch_;
  std::map<int64_t, Running> running_;  ///< by the batch's number of the row
  size_t model_ = 0;

  std::mutex mutex_;  ///< of what follows
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Generation>> waiting_;
  int64_t rows_ = 0;  ///< waiting and running
  bool closed_ = false, stopping_ = false;
  std::thread thread_;
};

}  // namespace fsllm
