// SPDX-License-Identifier: Apache-2.0
// Attention of rows of tokens over vectors `Lanes`, which the including file defines for its instruction set:
// small products whose operands stay in the cache, of which no score that the mask hides is computed.
#pragma once
#include "attention_tiles.hpp"
#include "cpu_kernels.hpp"
#include "product_tiles.hpp"
#include "stored_values.hpp"

namespace fsllm::detail {
namespace {

/// Rows of `dim` values, `stride` apart, as floats with zeros behind them up to `width`.
template <class T>
inline void pack_rows(T const* from, int64_t stride, int64_t rows, int64_t dim, int64_t width, float* to) {
  for (int64_t row = 0; row < rows; ++row, from += stride, to += width) {
    int64_t i = 0;
    for (; i + kLanes <= dim; i += kLanes) store(to + i, load(from + i));
    if (i < dim) store(to + i, load_some(from + i, dim - i));
  }
}

template <class T>
inline void unpack_rows(float const* from, int64_t width, int64_t rows, int64_t dim, int64_t stride, T* to) {
  for (int64_t row = 0; row < rows; ++row, from += width, to += stride) {
    int64_t i = 0;
    for (; i + kLanes <= dim; i += kLanes) store(to + i, load(from + i));
    if (i < dim) store_some(to + i, load(from + i), dim - i);
  }
}

/// [rows, width] as panels of kPanel rows, each [dim, kPanel]; zeros for the rows that are missing in the
/// last.
inline void pack_panels(float const* from, int64_t width, int64_t rows, int64_t dim, float* to) {
  for (int64_t first = 0; first < rows; first += kPanel, to += dim * kPanel)
    for (int64_t d = 0; d < dim; ++d)
      for (int64_t j = 0; j < kPanel; ++j)
        to[d * kPanel + j] = first + j < rows ? from[(first + j) * width + d] : 0;
}

/// What one row and key head work in.
struct CausalRoom {
  float *keys, *key_panels, *values, *value_panels, *grad_keys, *grad_values;  ///< of all its tokens
  float *queries, *out, *grad, *grad_queries, *scores, *grad_scores;           ///< of kCausalQueries of them
  float* places;                                                               ///< 0, 1, 2, …
  int64_t width, columns;  ///< of rows of dim values, and of scores
};

inline CausalRoom rooms(CausalRows const& c, float* room) {
  int64_t const width = (c.dim + kLanes - 1) / kLanes * kLanes;
  int64_t const columns = (c.longest + kPanel - 1) / kPanel * kPanel;
  CausalRoom r{};
  r.width = width;
  r.columns = columns;
  auto const take = [&](int64_t count) {
    auto* const from = room;
    room += count;
    return from;
  };
  for (auto** tokens : {&r.keys, &r.values, &r.grad_keys, &r.grad_values}) *tokens = take(columns * width);
  for (auto** panels : {&r.key_panels, &r.value_panels}) *panels = take(columns * c.dim);
  for (auto** queries : {&r.queries, &r.out, &r.grad, &r.grad_queries})
    *queries = take(kCausalQueries * width);
  for (auto** scores : {&r.scores, &r.grad_scores}) *scores = take(kCausalQueries * columns);
  r.places = take(columns);
  for (int64_t i = 0; i < columns; ++i) r.places[i] = static_cast<float>(i);
  return r;
}

/// A row of the batch and a key head, with a block of query tokens.
struct QueryBlock {
  int64_t first_query, first_key, past, tokens;  ///< of the row
  int64_t begin, count;                          ///< queries of the block, from the row's first
  int64_t low, vectors;                          ///< scores that are computed: from key `low`, by vectors
};

inline void take_block(CausalRows const& c, QueryBlock& block, int64_t begin, int64_t length) {
  block.begin = begin;
  block.count = length - begin < kCausalQueries ? length - begin : kCausalQueries;
  int64_t const oldest = block.past + begin - c.window + 1;
  block.low = c.window > 0 && oldest > 0 ? oldest / kPanel * kPanel : 0;
  block.vectors = (block.past + begin + block.count - block.low + kLanes - 1) / kLanes;
}

/// The keys that query i of a block sees: [low, high).
inline void seen_by(CausalRows const& c, QueryBlock const& block, int64_t i, int64_t& low, int64_t& high) {
  high = block.past + block.begin + i + 1;
  low = c.window > 0 && high > c.window ? high - c.window : 0;
}

inline Lanes scored(CausalRows const& c, float slope, float const* scores, float const* places,
                    Lanes last_place) {
  auto const score = multiply(load(scores), all(c.scale));
  return slope == 0 ? score : multiply_add(add(load(places), last_place), all(slope), score);
}

inline void zero_out(float* from, float const* to) {
  for (; from < to; ++from) *from = 0;
}

/// Scores become weights, e^(score − most); their sum, and `most`.
inline float weigh_row(CausalRows const& c, float slope, QueryBlock const& block, int64_t i,
                       CausalRoom const& r, float& most) {
  int64_t low = 0, high = 0;
  seen_by(c, block, i, low, high);
  auto* const scores = r.scores + i * r.columns;
  int64_t const end = block.low + block.vectors * kLanes;
  auto const last_place = all(-r.places[high - 1]);
  for (int64_t j = block.low; j < end; j += kLanes)
    store(scores + j, scored(c, slope, scores + j, r.places + j, last_place));
  for (int64_t j = block.low; j < low; ++j) scores[j] = -3e38F;
  for (int64_t j = high; j < end; ++j) scores[j] = -3e38F;
  auto highest = all(-3e38F);
  for (int64_t j = block.low; j < end; j += kLanes) highest = largest(highest, load(scores + j));
  float values[kLanes];
  store(values, highest);
  most = values[0];
  for (int l = 1; l < kLanes; ++l) most = values[l] > most ? values[l] : most;
  auto sum = zeros();
  for (int64_t j = block.low; j < end; j += kLanes) {
    auto const weight = exp_of(add(load(scores + j), all(-most)));
    store(scores + j, weight);
    sum = add(sum, weight);
  }
  zero_out(scores + block.low, scores + low);
  zero_out(scores + high, scores + end);
  return total(sum);
}

template <class T>
inline void pack_keys(CausalRows const& c, QueryBlock const& block, int64_t kv_head, CausalRoom const& r) {
  auto const of = [&](void const* data, int64_t token_stride, int64_t head_stride) {
    return static_cast<T const*>(data) + block.first_key * token_stride + kv_head * head_stride;
  };
  pack_rows(of(c.k, c.k_token, c.k_head), c.k_token, block.tokens, c.dim, r.width, r.keys);
  pack_rows(of(c.v, c.v_token, c.v_head), c.v_token, block.tokens, c.dim, r.width, r.values);
  pack_panels(r.keys, r.width, block.tokens, c.dim, r.key_panels);
}

inline void score_block(CausalRows const& c, QueryBlock const& block, float const* left, float const* panels,
                        CausalRoom const& r, float* scores) {
  tiled_product<false>(block.count, block.vectors, c.dim, {left, r.width, 1}, panels + block.low * c.dim,
                       kPanel, c.dim * kPanel, scores + block.low, r.columns);
}

/// Rows of weights times rows of values.
inline void weigh_block(QueryBlock const& block, float const* weights, float const* values,
                        CausalRoom const& r, float* to) {
  int64_t const keys = block.past + block.begin + block.count - block.low;
  tiled_product<false>(block.count, r.width / kLanes, keys, {weights + block.low, r.columns, 1},
                       values + block.low * r.width, r.width, kPanel, to, r.width);
}

/// Adds weightsᵀ · rows to the rows of keys (values).
inline void add_to_keys(QueryBlock const& block, float const* weights, float const* rows, CausalRoom const& r,
                        float* to) {
  int64_t const keys = block.past + block.begin + block.count - block.low;
  tiled_product<true>(keys, r.width / kLanes, block.count, {weights + block.low, 1, r.columns}, rows, r.width,
                      kPanel, to + block.low * r.width, r.width);
}

inline QueryBlock row_of(CausalRows const& c, int64_t row) {
  int64_t const first = c.firsts[row], past = c.past;
  return {first, first + row * past, past, past + c.firsts[row + 1] - first, 0, 0, 0, 0};
}

/// The next queries of a head, from the row's token `from` on, with their scores; the number of the first.
template <class T>
inline int64_t score_queries(CausalRows const& c, QueryBlock& block, int64_t head, int64_t from,
                             CausalRoom const& r) {
  take_block(c, block, from, block.tokens - block.past);
  int64_t const token = block.first_query + from;
  pack_rows(static_cast<T const*>(c.q) + token * c.q_token + head * c.q_head, c.q_token, block.count, c.dim,
            r.width, r.queries);
  score_block(c, block, r.queries, r.key_panels, r, r.scores);
  return token;
}

inline float slope_of(CausalRows const& c, int64_t head) {
  return c.slopes == nullptr ? 0 : c.slopes[head];
}

template <class T>
inline void causal_rows(CausalRows const& c, float* room, int64_t begin, int64_t end) {
  auto const r = rooms(c, room);
  int64_t const group = c.heads / c.kv_heads;
  for (int64_t item = begin; item < end; ++item) {
    auto block = row_of(c, item / c.kv_heads);
    int64_t const kv_head = item % c.kv_heads, length = block.tokens - block.past;
    pack_keys<T>(c, block, kv_head, r);
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
      for (int64_t from = 0; from < length; from += kCausalQueries) {
        int64_t const token = score_queries<T>(c, block, head, from, r);
        for (int64_t i = 0; i < block.count; ++i) {
          float most = 0;
          float const sum = weigh_row(c, slope_of(c, head), block, i, r, most);
          float const inverse = 1 / sum;
          auto* const weights = r.scores + i * r.columns + block.low;
          for (int64_t j = 0; j < block.vectors * kLanes; j += kLanes)
            store(weights + j, multiply(load(weights + j), all(inverse)));
          c.sums[(token + i) * c.heads + head] = most + __builtin_logf(sum);
        }
        weigh_block(block, r.scores, r.values, r, r.out);
        unpack_rows(r.out, r.width, block.count, c.dim, c.heads * c.dim,
                    static_cast<T*>(c.out) + (token * c.heads + head) * c.dim);
      }
  }
}

/// Weights again, from the logarithms of their sums; then dS = P ∘ (dP − Σ P ∘ dP) · scale in grad_scores.
inline void backward_row(CausalRows const& c, float slope, QueryBlock const& block, int64_t i, float log_sum,
                         CausalRoom const& r) {
  int64_t low = 0, high = 0;
  seen_by(c, block, i, low, high);
  auto *const weights = r.scores + i * r.columns, *const grads = r.grad_scores + i * r.columns;
  int64_t const end = block.low + block.vectors * kLanes;
  auto const last_place = all(-r.places[high - 1]);
  for (int64_t j = block.low; j < end; j += kLanes) {
    auto const score = scored(c, slope, weights + j, r.places + j, last_place);
    store(weights + j, exp_of(smallest(zeros(), add(score, all(-log_sum)))));
  }
  zero_out(weights + block.low, weights + low);
  zero_out(weights + high, weights + end);
  auto sums = zeros();
  for (int64_t j = block.low; j < end; j += kLanes)
    sums = multiply_add(load(weights + j), load(grads + j), sums);
  auto const along = all(-total(sums));
  for (int64_t j = block.low; j < end; j += kLanes)
    store(grads + j, multiply(multiply(load(weights + j), add(load(grads + j), along)), all(c.scale)));
}

template <class T>
inline void causal_rows_backward(CausalRows const& c, float* room, int64_t begin, int64_t end) {
  auto const r = rooms(c, room);
  int64_t const group = c.heads / c.kv_heads;
  for (int64_t item = begin; item < end; ++item) {
    auto block = row_of(c, item / c.kv_heads);
    int64_t const kv_head = item % c.kv_heads, length = block.tokens - block.past;
    pack_keys<T>(c, block, kv_head, r);
    pack_panels(r.values, r.width, block.tokens, c.dim, r.value_panels);
    zero_out(r.grad_keys, r.grad_keys + block.tokens * r.width);
    zero_out(r.grad_values, r.grad_values + block.tokens * r.width);
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
      for (int64_t from = 0; from < length; from += kCausalQueries) {
        int64_t const token = score_queries<T>(c, block, head, from, r);
        int64_t const mixed = (token * c.heads + head) * c.dim;
        pack_rows(static_cast<T const*>(c.grad) + mixed, c.heads * c.dim, block.count, c.dim, r.width,
                  r.grad);
        score_block(c, block, r.grad, r.value_panels, r, r.grad_scores);
        for (int64_t i = 0; i < block.count; ++i)
          backward_row(c, slope_of(c, head), block, i, c.sums[(token + i) * c.heads + head], r);
        add_to_keys(block, r.scores, r.grad, r, r.grad_values);
        add_to_keys(block, r.grad_scores, r.queries, r, r.grad_keys);
        weigh_block(block, r.grad_scores, r.keys, r, r.grad_queries);
        unpack_rows(r.grad_queries, r.width, block.count, c.dim, c.heads * c.dim,
                    static_cast<T*>(c.grad_q) + mixed);
      }
    int64_t const at = (block.first_key * c.kv_heads + kv_head) * c.dim, stride = c.kv_heads * c.dim;
    unpack_rows(r.grad_keys, r.width, block.tokens, c.dim, stride, static_cast<T*>(c.grad_k) + at);
    unpack_rows(r.grad_values, r.width, block.tokens, c.dim, stride, static_cast<T*>(c.grad_v) + at);
  }
}

inline void causal(CausalRows const& c, float* room, int64_t begin, int64_t end) {
  with_type(c.type, [&]<class T>(T*) { causal_rows<T>(c, room, begin, end); });
}
inline void causal_backward(CausalRows const& c, float* room, int64_t begin, int64_t end) {
  with_type(c.type, [&]<class T>(T*) { causal_rows_backward<T>(c, room, begin, end); });
}

}  // namespace
}  // namespace fsllm::detail
