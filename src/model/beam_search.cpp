// SPDX-License-Identifier: Apache-2.0
#include "beam_search.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/topk.h>

#include <algorithm>
#include <cmath>

namespace fsllm::detail {
namespace {

struct Beam {
  std::vector<int32_t> ids;  ///< new ones
  double score = 0;
};

class BeamSearch {
 public:
  BeamSearch(CausalLM& model, GenerateRow const& row, int64_t number, GenerateOptions const& options)
      : model_(model), row_(row), number_(number), options_(options), cache_(model.config().num_layers, 1) {}

  std::vector<int32_t> run() {
    if (row_.max_tokens == 0) return {};
    running_ = {{}};
    for (int64_t length = 1; can_improve(length); ++length) step(length);
    auto ids = finished_.front().ids;
    if (is_stop_id(ids.back())) ids.pop_back();
    return ids;
  }

 private:
  struct Candidate {
    size_t beam;
    int32_t id;
    double score;
  };

  bool is_stop_id(int32_t id) const {
    return std::ranges::find(options_.stop_ids, id) != options_.stop_ids.end();
  }
  double final_score(double score, int64_t length) const {
    return score / std::pow(static_cast<double>(length), row_.length_penalty);
  }

  /// Whether a running beam, judged at the length it has before token `length`, beats the worst finished one.
  bool can_improve(int64_t length) const {
    if (running_.empty()) return false;
    if (length == 1 || std::ssize(finished_) < row_.num_beams) return true;
    return final_score(running_.front().score, length - 1) > finished_.back().score;
  }

  void step(int64_t length) {
    auto const candidates = best_continuations();
    std::vector<Beam> next;
    std::vector<int64_t> parents;
    int64_t rank = 0;
    for (auto const& [beam, id, score] : candidates) {
      Beam grown{running_[beam].ids, score};
      grown.ids.push_back(id);
      bool const ends =
          is_stop_id(id) || length == row_.max_tokens || (options_.stop && options_.stop(number_, grown.ids));
      if (ends && rank < row_.num_beams) finish({std::move(grown.ids), final_score(score, length)});
      if (!ends && std::ssize(next) < row_.num_beams) {
        next.push_back(std::move(grown));
        parents.push_back(static_cast<int64_t>(beam));
      }
      ++rank;
    }
    cache_.keep(parents);
    running_ = std::move(next);
  }

  void finish(Beam beam) {
    auto const place = std::ranges::upper_bound(finished_, beam.score, std::ranges::greater{}, &Beam::score);
    finished_.insert(place, std::move(beam));
    if (std::ssize(finished_) > row_.num_beams) finished_.pop_back();
  }

  /// Enough that num_beams go on where as many end.
  std::vector<Candidate> best_continuations() {
    auto const scores = next_scores();
    int64_t const vocab = scores.size(1);
    int64_t const wanted = std::max<int64_t>(2, 1 + std::ssize(options_.stop_ids)) * row_.num_beams;
    auto const [best, places] = at::topk(scores.reshape({-1}), std::min(wanted, scores.numel()));
    std::vector<Candidate> candidates;
    for (int64_t i = 0; i < best.numel(); ++i) {
      auto const place = places.const_data_ptr<int64_t>()[i];
      candidates.push_back({static_cast<size_t>(place / vocab), static_cast<int32_t>(place % vocab),
                            best.const_data_ptr<double>()[i]});
    }
    return candidates;
  }

  /// Of each running beam with each token behind it, fp64 [beams, vocab].
  at::Tensor next_scores() {
    RaggedInput input;
    std::vector<int64_t> ids, last;
    std::vector<double> scores;
    for (auto const& beam : running_) {
      if (beam.ids.empty())
        ids.assign(row_.prompt.begin(), row_.prompt.end());
      else
        ids.push_back(beam.ids.back());
      input.offsets.push_back(std::ssize(ids));
      last.push_back(std::ssize(ids) - 1);
      scores.push_back(beam.score);
    }
    input.ids = at::tensor(ids, at::kLong);
    auto const pass = model_.pass(input, {}, &cache_);
    auto const hidden = model_.hidden_states(input.ids, pass);
    pass.advance_cache();
    auto const logits =
        model_.logits(at::index_select(hidden, 0, at::tensor(last, at::kLong).to(hidden.device())), pass);
    return at::add(at::log_softmax(logits.to(at::kCPU, at::kDouble), -1),
                   at::tensor(scores, at::kDouble).view({-1, 1}));
  }

  CausalLM& model_;
  GenerateRow const& row_;
  int64_t number_;
  GenerateOptions const& options_;
  KvCache cache_;
  std::vector<Beam> running_, finished_;  ///< the best first
};

}  // namespace

std::vector<int32_t> beam_search(CausalLM& model, GenerateRow const& row, int64_t number,
                                 GenerateOptions const& options) {
  at::NoGradGuard const no_grad;
  return BeamSearch(model, row, number, options).run();
}

}  // namespace fsllm::detail
