// SPDX-License-Identifier: Apache-2.0
#include "mmlu_data.hpp"

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/eval/csv.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm::detail {
namespace {

namespace fs = std::filesystem;

fs::path mmlu_file(fs::path const& data, std::string const& split, std::string const& subject) {
  return data / "mmlu" / split / (subject + "_" + split + ".csv");
}

int64_t answer_of(std::string const& text) {
  if (text.size() != 1) return -1;
  for (char const first : {'A', '0'})
    if (text[0] >= first && text[0] < first + 4) return text[0] - first;
  return -1;
}

}  // namespace

std::vector<MmluSubject> const& mmlu_subjects() {
  static std::vector<MmluSubject> const subjects = {
      {"abstract_algebra", "stem"},
      {"anatomy", "stem"},
      {"astronomy", "stem"},
      {"business_ethics", "other"},
      {"clinical_knowledge", "other"},
      {"college_biology", "stem"},
      {"college_chemistry", "stem"},
      {"college_computer_science", "stem"},
      {"college_mathematics", "stem"},
      {"college_medicine", "other"},
      {"college_physics", "stem"},
      {"computer_security", "stem"},
      {"conceptual_physics", "stem"},
      {"econometrics", "social_sciences"},
      {"electrical_engineering", "stem"},
      {"elementary_mathematics", "stem"},
      {"formal_logic", "humanities"},
      {"global_facts", "other"},
      {"high_school_biology", "stem"},
      {"high_school_chemistry", "stem"},
      {"high_school_computer_science", "stem"},
      {"high_school_european_history", "humanities"},
      {"high_school_geography", "social_sciences"},
      {"high_school_government_and_politics", "social_sciences"},
      {"high_school_macroeconomics", "social_sciences"},
      {"high_school_mathematics", "stem"},
      {"high_school_microeconomics", "social_sciences"},
      {"high_school_physics", "stem"},
      {"high_school_psychology", "social_sciences"},
      {"high_school_statistics", "stem"},
      {"high_school_us_history", "humanities"},
      {"high_school_world_history", "humanities"},
      {"human_aging", "other"},
      {"human_sexuality", "social_sciences"},
      {"international_law", "humanities"},
      {"jurisprudence", "humanities"},
      {"logical_fallacies", "humanities"},
      {"machine_learning", "stem"},
      {"management", "other"},
      {"marketing", "other"},
      {"medical_genetics", "other"},
      {"miscellaneous", "other"},
      {"moral_disputes", "humanities"},
      {"moral_scenarios", "humanities"},
      {"nutrition", "other"},
      {"philosophy", "humanities"},
      {"prehistory", "humanities"},
      {"professional_accounting", "other"},
      {"professional_law", "humanities"},
      {"professional_medicine", "other"},
      {"professional_psychology", "social_sciences"},
      {"public_relations", "social_sciences"},
      {"security_studies", "social_sciences"},
      {"sociology", "social_sciences"},
      {"us_foreign_policy", "social_sciences"},
      {"virology", "other"},
      {"world_religions", "humanities"}};
  return subjects;
}

std::vector<MmluQuestion> read_mmlu(fs::path const& data, std::string const& split,
                                    std::string const& subject) {
  auto const file = mmlu_file(data, split, subject);
  auto records = parse_csv(read_file(file), file.string());
  if (!records.empty() && records.front().fields.front() == "question" &&
      records.front().fields.back() == "answer")
    records.erase(records.begin());
  std::vector<MmluQuestion> questions;
  for (auto const& [fields, line] : records) {
    FSLLM_CHECK(fields.size() == 6,
                "{}:{}: {} fields (a question, four choices and an answer are needed). Correct it.",
                file.string(), line, fields.size());
    MmluQuestion question{fields[0], {fields[1], fields[2], fields[3], fields[4]}, answer_of(fields[5])};
    FSLLM_CHECK(question.answer >= 0, "{}:{}: answer '{:.20}' (A to D, or 0 to 3). Correct it.",
                file.string(), line, fields[5]);
    questions.push_back(std::move(question));
  }
  FSLLM_CHECK(!questions.empty(), "{} holds no question. Copy it again.", file.string());
  return questions;
}

std::vector<MmluSubject> mmlu_subjects_in(fs::path const& data) {
  std::vector<MmluSubject> found;
  for (auto const& subject : mmlu_subjects())
    if (fs::exists(mmlu_file(data, "test", subject.name))) found.push_back(subject);
  auto const all = mmlu_subjects().size();
  FSLLM_CHECK(!found.empty(),
              "no questions in {} (MMLU lies there as SUBJECT_test.csv, as in Hendrycks' data.tar). Put them "
              "there, or name another folder.",
              (data / "mmlu/test").string());
  if (found.size() < all)
    log_warning("{} holds {} of the {} subjects of MMLU: scores are those of these",
                (data / "mmlu/test").string(), found.size(), all);
  return found;
}

std::string readable_subject(std::string const& subject) {
  auto text = subject;
  std::ranges::replace(text, '_', ' ');
  return text;
}

}  // namespace fsllm::detail
