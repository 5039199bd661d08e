// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace fsllm::detail {

/// One of the 57 subjects and the group that it is counted in: stem, humanities, social_sciences, other.
struct MmluSubject {
  char const *name, *group;
};
std::vector<MmluSubject> const& mmlu_subjects();

struct MmluQuestion {
  std::string question;
  std::array<std::string, 4> choices;
  int64_t answer = 0;  ///< 0 to 3
};

/// DATA/mmlu/SPLIT/SUBJECT_SPLIT.csv, either as Hendrycks et al. give it (no header, answers A to D) or with
/// the header question,choice0,...,choice3,answer and answers 0 to 3. A bad row is an Error "file:line: why".
std::vector<MmluQuestion> read_mmlu(std::filesystem::path const& data, std::string const& split,
                                    std::string const& subject);
/// Those subjects of which DATA/mmlu/test holds a file; none at all is an Error, some are a warning.
std::vector<MmluSubject> mmlu_subjects_in(std::filesystem::path const& data);

/// "high_school_physics" → "high school physics".
std::string readable_subject(std::string const& subject);

}  // namespace fsllm::detail
