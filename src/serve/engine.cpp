// SPDX-License-Identifier: Apache-2.0
#include "fsllm/serve/engine.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"

namespace fsllm {
namespace {

HttpError unavailable(std::string const& why) {
  return {503, why + " Come again in a second.", "", "overloaded"};
}

bool is_empty(GenerateRow const& row) {
  return row.max_tokens == 0 && !row.prompt_logprobs;
}

}  // namespace

Generation::Generation(size_t model, std::vector<GenerateRow> rows)
    : model_(model), rows_(std::move(rows)), left_(rows_.size()) {}

std::vector<NewTokenEvent> Generation::wait(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  news_.wait_for(lock, patience, [&] { return !events_.empty() || error_; });
  if (events_.empty() && error_) throw HttpError(*error_);
  return std::exchange(events_, {});
}

void Generation::leave() {
  for (auto& left : left_) left = true;
}

void Generation::give(NewTokenEvent event) {
  std::lock_guard const lock(mutex_);
  events_.push_back(std::move(event));
  news_.notify_one();
}

void Generation::fail(HttpError const& error) {
  std::lock_guard const lock(mutex_);
  error_ = error;
  news_.notify_one();
}

Engine::Engine(ModelSession& session, std::vector<ServedModel> const& models, EngineOptions options)
    : session_(session), models_(models), options_(std::move(options)), thread_([this] { run(); }) {}

std::shared_ptr<Generation> Engine::submit(size_t model, std::vector<GenerateRow> rows) {
  auto const count = static_cast<int64_t>(rows.size());
  auto generation = std::make_shared<Generation>(model, std::move(rows));
  std::lock_guard const lock(mutex_);
  if (closed_) throw unavailable("The server is going down (it was told to end).");
  if (rows_ + count > options_.most_rows)
    throw unavailable(
        fmt::format("The server is full ({} choices run or wait, {} at most).", rows_, options_.most_rows));
  rows_ += count;
  waiting_.push_back(generation);
  changed_.notify_all();
  return generation;
}

void Engine::stop(std::chrono::milliseconds grace) {
  {
    std::unique_lock lock(mutex_);
    closed_ = true;
    changed_.wait_for(lock, grace, [&] { return rows_ == 0; });
    stopping_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void Engine::run() {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stopping_ || !waiting_.empty() || !running_.empty(); });
      if (stopping_) break;
    }
    for (auto const& generation : next_to_join()) join(generation);
    dismiss_left();
    if (!running_.empty()) step();
  }
  fail_all(unavailable("The server is going down (it was told to end)."));
}

/// Those of the model in use, unless another model's requests wait; with an empty batch those of the oldest
/// request's model.
std::vector<std::shared_ptr<Generation>> Engine::next_to_join() {
  std::vector<std::shared_ptr<Generation>> next;
  std::lock_guard const lock(mutex_);
  if (waiting_.empty()) return next;
  auto const of = [](size_t model) {
    return [model](std::shared_ptr<Generation> const& each) { return each->model_ == model; };
  };
  bool const others_wait = !std::all_of(waiting_.begin(), waiting_.end(), of(model_));
  if (!running_.empty() && others_wait) return next;
  auto const model = waiting_.front()->model_;
  auto const kept = std::stable_partition(waiting_.begin(), waiting_.end(), of(model));
  next.assign(waiting_.begin(), kept);
  waiting_.erase(waiting_.begin(), kept);
  return next;
}

void Engine::join(std::shared_ptr<Generation> const& generation) {
  size_t row = 0;
  try {
    if (running_.empty() && (!batch_ || generation->model_ != model_)) {
      batch_.reset();
      session_.use(models_[generation->model_].adapter);
      model_ = generation->model_;
    }
    if (!batch_) batch_ = std::make_unique<RunningBatch>(session_.model(), options_.batch);
    for (; row < generation->rows_.size(); ++row) {
      if (is_empty(generation->rows_[row])) {
        generation->give({.row = static_cast<int64_t>(row), .end = NewTokenEvent::End::length});
        forget(1);
      } else {
        running_[batch_->join(std::move(generation->rows_[row]))] = {generation, row};
      }
    }
  } catch (std::exception const& error) {
    log_warning("a request failed: {}", error.what());
    generation->leave();
    forget(static_cast<int64_t>(generation->rows_.size() - row));
    generation->fail({500, fmt::format("The request failed ({}).", error.what()), "", "internal_error"});
  }
}

void Engine::dismiss_left() {
  for (auto each = running_.begin(); each != running_.end();) {
    auto const& [generation, row] = each->second;
    if (!generation->left_[row]) {
      ++each;
      continue;
    }
    batch_->leave(each->first);
    each = running_.erase(each);
    forget(1);
  }
}

void Engine::step() {
  try {
    for (auto& event : batch_->step()) deliver(std::move(event));
  } catch (std::exception const& error) {
    log_warning("a forward pass failed: {}", error.what());
    batch_.reset();
    HttpError const told(500, fmt::format("A forward pass failed ({}).", error.what()), "", "internal_error");
    for (auto const& [number, running] : running_) running.generation->fail(told);
    forget(static_cast<int64_t>(running_.size()));
    running_.clear();
  }
}

void Engine::deliver(NewTokenEvent event) {
  using End = NewTokenEvent::End;
  auto const found = running_.find(event.row);
  if (found == running_.end()) return;
  auto const number = found->first;
  auto const [generation, row] = found->second;
  auto const& stops = models_[model_].stop_ids;
  bool const goes_on = event.end == End::no;
  if (event.token && std::find(stops.begin(), stops.end(), *event.token) != stops.end())
    event.end = End::stop_id;
  if (event.end != End::no) {
    if (goes_on) batch_->leave(number);
    running_.erase(found);
    forget(1);
  }
  event.row = static_cast<int64_t>(row);
  generation->give(std::move(event));
}

void Engine::fail_all(HttpError const& error) {
  std::lock_guard const lock(mutex_);
  for (auto const& generation : waiting_) generation->fail(error);
  for (auto const& [number, running] : running_) running.generation->fail(error);
  waiting_.clear();
  running_.clear();
  rows_ = 0;
}

/// Rows that neither run nor wait any more.
void Engine::forget(int64_t rows) {
  std::lock_guard const lock(mutex_);
  rows_ -= rows;
  changed_.notify_all();
}

}  // namespace fsllm
