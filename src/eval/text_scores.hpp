// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

namespace fsllm::detail {

/// SQuAD's normalisation (Rajpurkar et al. 2016): lower case, without ASCII punctuation and the articles a,
/// an, the, words one blank apart.
std::string squad_normalised(std::string const& text);
/// Harmonic mean of precision and recall of words, counted with their number, after that normalisation.
double squad_f1(std::string const& prediction, std::string const& target);
/// ROUGE-L's F1 (Lin 2004) of words of lower-case ASCII letters and digits, as the package rouge_score
/// without stemming.
double rouge_l(std::string const& prediction, std::string const& target);

}  // namespace fsllm::detail
