// SPDX-License-Identifier: Apache-2.0
#include "fsllm/eval/continuation.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <string_view>

#include "batches.hpp"

namespace fsllm {
namespace {

/// Rows of a running batch: enough to fill it, few enough that all ranks have some.
constexpr size_t kFewestRows = 16, kMostRows = 128, kBatches = 8;

size_t first_stop(std::string const& text, std::vector<std::string> const& stops) {
  size_t found = std::string::npos;
  for (auto const& stop : stops) found = std::min(found, text.find(stop));
  return found;
}

/// The text without special tokens of what of `ids` stands before byte `end` of `all`, their text with them.
std::string text_up_to(Tokenizer const& tokenizer, std::vector<int32_t> const& ids, std::string const& all,
                       size_t end) {
  size_t count = ids.size();
  auto const beginning = [&](bool skip_special_tokens) {
    return tokenizer.decode({ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count)},
                            skip_special_tokens);
  };
  while (end != std::string::npos && count > 0 && beginning(false).size() > end) --count;
  auto text = beginning(true);
  // The token that the end lies in may begin with some of the answer.
  if (count < ids.size() && !tokenizer.piece(ids[count]).empty())
    text += all.substr(beginning(false).size(), end - beginning(false).size());
  return text;
}

/// What clean_up_tokenization_spaces changes once all of it is there (transformers' clean_up_tokenization).
constexpr std::array<std::string_view, 10> kCleanedUp{" .",   " ?",  " !",  " ,",   " ' ",
                                                      " n't", " 'm", " 's", " 've", " 're"};

/// Bytes of `text` without an end that is part of a character (U+FFFD so far), of a stop string or of what
/// is cleaned up.
size_t lasting_size(std::string_view text, std::vector<std::string> const& stops) {
  while (text.ends_with("\xEF\xBF\xBD")) text.remove_suffix(3);
  size_t held = 0;
  auto const hold = [&](std::string_view pattern) {
    for (size_t size = std::min(pattern.size() - 1, text.size()); size > held; --size)
      if (text.ends_with(pattern.substr(0, size))) held = size;
  };
  for (auto const& stop : stops) hold(stop);
  for (auto const pattern : kCleanedUp) hold(pattern);
  return text.size() - held;
}

std::vector<NewToken> continue_batch(CausalLM& model, Tokenizer const* tokenizer,
                                     std::vector<Continuation> const& rows, std::vector<size_t> const& batch,
                                     int64_t batch_tokens) {
  std::vector<GenerateRow> texts;
  for (auto const row : batch) texts.push_back(rows[row].row);
  GenerateOptions options{.most_tokens = batch_tokens};
  options.stop_ids = model.config().eos_ids;
  if (tokenizer != nullptr && tokenizer->eos_id()) options.stop_ids.push_back(*tokenizer->eos_id());
  options.stop = [&](int64_t i, std::vector<int32_t> const& ids) {
    auto const& stops = rows[batch[static_cast<size_t>(i)]].stops;
    return !stops.empty() && is_stopped(*tokenizer, ids, stops);
  };
  auto const answers = generate(model, texts, options);
  std::vector<NewToken> tokens;
  for (size_t i = 0; i < batch.size(); ++i)
    for (auto const id : answers[i]) tokens.push_back({static_cast<int64_t>(batch[i]), id});
  return tokens;
}

}  // namespace

std::vector<NewToken> continue_rows(CausalLM& model, Tokenizer const* tokenizer,
                                    std::vector<Continuation> const& rows, int64_t batch_tokens,
                                    BatchShare const& share, size_t batch_rows,
                                    OnBatch<NewToken> const& on_batch) {
  std::vector<size_t> order(rows.size());
  std::iota(order.begin(), order.end(), size_t{0});
  // Neighbours begin alike.
  std::ranges::stable_sort(
      order, {}, [&](size_t row) -> auto const& { return rows[row].row.prompt; });
  auto const size = batch_rows > 0
                        ? batch_rows
                        : std::clamp((rows.size() + kBatches - 1) / kBatches, kFewestRows, kMostRows);
  std::vector<std::vector<size_t>> batches;
  for (size_t first = 0; first < order.size(); first += size)
    batches.emplace_back(order.begin() + static_cast<std::ptrdiff_t>(first),
                         order.begin() + static_cast<std::ptrdiff_t>(std::min(order.size(), first + size)));
  std::vector<int64_t> sizes;
  for (auto const& batch : batches) sizes.push_back(std::ssize(batch));
  std::vector<NewToken> tokens;
  detail::for_each_batch(share, sizes, [&](BatchDone const& done) {
    auto const news =
        continue_batch(model, tokenizer, rows, batches[static_cast<size_t>(done.number)], batch_tokens);
    tokens.insert(tokens.end(), news.begin(), news.end());
    if (on_batch) on_batch(done, news);
  });
  return tokens;
}

bool is_stopped(Tokenizer const& tokenizer, std::vector<int32_t> const& ids,
                std::vector<std::string> const& stops) {
  size_t longest = 0;
  for (auto const& stop : stops) longest = std::max(longest, stop.size());
  auto const tail = std::min(ids.size(), longest + 8);
  auto const holds_stop = [&](size_t count, bool skip_special_tokens) {
    auto const text =
        tokenizer.decode({ids.end() - static_cast<std::ptrdiff_t>(count), ids.end()}, skip_special_tokens);
    return first_stop(text, stops) != std::string::npos;
  };
  for (bool const skip : {false, true})
    if (holds_stop(tail, skip) && (tail == ids.size() || holds_stop(ids.size(), skip))) return true;
  return false;
}

std::vector<std::vector<int32_t>> tokens_by_row(std::vector<NewToken> const& tokens, size_t rows) {
  std::vector<std::vector<int32_t>> ids(rows);
  for (auto const& token : tokens)
    ids[static_cast<size_t>(token.row)].push_back(static_cast<int32_t>(token.id));
  return ids;
}

std::string text_before_stop(Tokenizer const& tokenizer, std::vector<int32_t> const& ids,
                             std::vector<std::string> const& stops) {
  auto const all = tokenizer.decode(ids, false);
  auto text = text_up_to(tokenizer, ids, all, first_stop(all, stops));
  return text.substr(0, first_stop(text, stops));
}

std::string lasting_text(Tokenizer const& tokenizer, std::vector<int32_t> const& ids,
                         std::vector<std::string> const& stops) {
  auto const all = tokenizer.decode(ids, false);
  auto const end = lasting_size(all, stops);
  auto text = text_up_to(tokenizer, ids, all, end < all.size() ? end : std::string::npos);
  text.resize(lasting_size(text, stops));
  return text;
}

}  // namespace fsllm
