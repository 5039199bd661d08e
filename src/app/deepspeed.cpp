// SPDX-License-Identifier: Apache-2.0
#include "deepspeed.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/names.hpp"
#include "fsllm/core/paths.hpp"
#include "fsllm/io/jsonl.hpp"

namespace fsllm {
namespace {

std::optional<double> as_number(std::string const& text) {
  double value = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

/// Two values as they are written: "1e-3" and "0.001", True and true, "[1, 2]" and "[1.0, 2.0]" are the same.
bool same_value(std::string const& a, std::string const& b) {
  if (a.starts_with('[') && b.starts_with('[')) {
    auto const comma_a = a.find(','), comma_b = b.find(',');
    auto const first = [](std::string const& list, size_t comma) {
      auto const end = comma == std::string::npos ? list.size() - 1 : comma;
      auto const begin = std::min(list.find_first_not_of("[ "), end);
      return list.substr(begin, end - begin);
    };
    if (!same_value(first(a, comma_a), first(b, comma_b))) return false;
    if (comma_a == std::string::npos || comma_b == std::string::npos) return comma_a == comma_b;
    return same_value("[" + a.substr(comma_a + 1), "[" + b.substr(comma_b + 1));
  }
  auto const x = as_number(a), y = as_number(b);
  return x && y ? *x == *y : lower_case(a) == lower_case(b);
}

bool is_one_of(std::string const& value, std::string choices) {
  for (size_t bar = choices.find('|'); bar != choices.npos; bar = choices.find('|')) {
    if (same_value(value, choices.substr(0, bar))) return true;
    choices = choices.substr(bar + 1);
  }
  return same_value(value, choices);
}

/// One of our keys, and the JSON's that gives it.
struct Setting {
  std::string from, key, value;
};

/// What a JSON file says in our keys. Mapping a section reads the file and adds settings and problems.
class Translation {
 public:
  Translation(Config const& yaml, Config const& file, std::string source, int64_t ranks)
      : yaml_(yaml), file_(file), source_(std::move(source)), world_(ranks) {}

  std::vector<Setting> settings;
  std::vector<std::string> contradictions, refused;
  std::map<std::string, std::vector<std::string>> unread;  ///< why → keys

  void run() {
    look_through();
    stages();
    precision();
    scheduler();
    optimizer();
    copy("gradient_clipping", "grad.grad_clip");
    copy("dataloader_drop_last", "dataloader.drop_last");
    batches();
  }

 private:
  /// What stands there; nothing for what is absent, null or "auto".
  std::optional<std::string> given(std::string const& path) const {
    auto const text = file_.text(path);
    if (!text || text->empty() || lower_case(*text) == "auto") return {};
    return text;
  }
  std::optional<double> number(std::string const& path) const {
    auto const text = given(path);
    if (!text) return {};
    auto const value = as_number(*text);
    FSLLM_CHECK(value, "{} = '{}' (a number is needed). Change it.", file_.where(path), *text);
    return value;
  }
  std::optional<bool> flag(std::string const& path) const {
    auto const text = given(path);
    if (!text) return {};
    auto const value = lower_case(*text);
    FSLLM_CHECK(value == "true" || value == "false", "{} = '{}' (must be true or false). Change it.",
                file_.where(path), *text);
    return value == "true";
  }

  /// Every key is known, and none asks for what is not there.
  void look_through() {
    std::vector<std::string> known;
    for (auto const& key : deepspeed_keys()) known.emplace_back(key.path);
    for (auto const& path : file_.given_keys()) {
      if (path.starts_with("_") || path.find("._") != path.npos) continue;  // comments
      auto const value = file_.text(path).value_or("");
      auto const* const key = find_deepspeed_key(path);
      bool const section = std::any_of(known.begin(), known.end(),
                                       [&](auto const& one) { return one.starts_with(path + "."); });
      if (value.empty() && (section || key != nullptr)) continue;  // null
      FSLLM_CHECK(!section || key != nullptr, "{} = {} (a section with keys below it is needed). Change it.",
                  file_.where(path), value);
      FSLLM_CHECK(key != nullptr && (key->use != DeepSpeedKey::Use::mapped || path == key->path),
                  "{} (unknown key).{}", file_.where(path), did_you_mean_key(path, known));
      if (key->use == DeepSpeedKey::Use::unread)
        unread[key->what].push_back(path);
      else if (key->use == DeepSpeedKey::Use::refused && given(path) && !is_one_of(value, key->off))
        refuse(path, key->what);
    }
  }

  void refuse(std::string const& path, std::string const& why) {
    refused.push_back(fmt::format("{} = {}: {}", path, file_.text(path).value_or(""), why));
  }

  void set(std::string const& from, std::string const& key, std::string const& value) {
    auto const own = yaml_.text(key);
    if (own && !own->empty() && !same_value(*own, value))
      contradictions.push_back(
          fmt::format("{} = {} and {} = {}{}", yaml_.where(key), *own, file_.where(from),
                      file_.text(from).value_or(value),
                      file_.text(from) == value ? "" : fmt::format(", which is {}", value)));
    else
      settings.push_back({from, key, value});
  }
  void set(std::string const& from, std::string const& key, double value) {
    set(from, key, fmt::format("{}", value));
  }
  /// DeepSpeed's default where it is not ours, unless the configuration says otherwise.
  void set_default(std::string const& from, std::string const& key, std::string const& value) {
    bool const set_already =
        std::any_of(settings.begin(), settings.end(), [&](Setting const& one) { return one.key == key; });
    if (!yaml_.has(key) && !set_already) settings.push_back({from, key, value});
  }
  void copy(std::string const& from, std::string const& key) {
    if (auto const value = given(from)) set(from, key, *value);
  }

  void stages() {
    std::string const zero = "zero_optimization.";
    auto const stage = number(zero + "stage");
    if (stage) set(zero + "stage", "hpc.zero_stage", *stage);
    ranks_ = 1;
    if (auto const own = yaml_.text("hpc.ranks_per_client"); own && as_number(*own))
      ranks_ = std::max<int64_t>(1, static_cast<int64_t>(*as_number(*own)));
    else if (stage && *stage >= 1)
      set(zero + "stage", "hpc.ranks_per_client", static_cast<double>(ranks_ = world_));
    std::string offload, from;
    for (auto const& [section, ours] :
         {std::pair{"offload_optimizer", "optimizer"}, std::pair{"offload_param", "params"}}) {
      auto const key = zero + section + ".device";
      auto const device = given(key).value_or("none");
      if (device == "cpu")
        offload = ours, from = key;
      else if (device != "none")
        refuse(key, "what is trained lies in memory, not on disks");
    }
    if (offload == "params" && stage.value_or(3) < 3) refuse(from, "only stage 3 has parts of weights");
    if (!offload.empty()) set(from, "hpc.offload", offload);
  }

  void precision() {
    auto const fp16 = flag("fp16.enabled"), bf16 = flag("bf16.enabled");
    if (fp16.value_or(false) && bf16.value_or(false)) refuse("bf16.enabled", "fp16.enabled is true as well");
    for (auto const& [from, type, on] :
         {std::tuple{"fp16.enabled", "fp16", fp16}, std::tuple{"bf16.enabled", "bf16", bf16}}) {
      if (!on) continue;
      if (*on)
        set(from, "train.compute_dtype", std::string(type));
      else
        for (auto const& [key, value] :
             {std::pair{"train.compute_dtype", type}, std::pair{"train.is_enable_half", "True"}})
          if (same_value(yaml_.text(key).value_or(""), value) && !(from[0] == 'b' && value[0] == 'T'))
            contradictions.push_back(
                fmt::format("{} = {} and {} = false", yaml_.where(key), value, file_.where(from)));
    }
    if (fp16 && !*fp16) {
      for (auto const& path : file_.given_keys())
        if (path.starts_with("fp16.") && path != "fp16.enabled" && path != "fp16.auto_cast")
          unread["fp16.enabled is false"].push_back(path);
      return;
    }
    copy("fp16.loss_scale", "train.loss_scale");
    copy("fp16.initial_scale_power", "train.initial_scale_power");
    copy("fp16.loss_scale_window", "train.loss_scale_window");
    copy("fp16.hysteresis", "train.loss_scale_hysteresis");
    if (!fp16.value_or(false)) return;
    set_default("fp16.enabled", "train.loss_scale_window", "1000");
    set_default("fp16.enabled", "train.loss_scale_hysteresis", "2");
  }

  void scheduler() {
    std::string const params = "scheduler.params.", ours = "train.scheduler.";
    auto const type = given("scheduler.type");
    if (!type) return;
    bool const cosine = *type == "WarmupCosineLR";
    if (!cosine && *type != "WarmupLR" && *type != "WarmupDecayLR")
      return refuse("scheduler.type", "there are WarmupLR, WarmupDecayLR and WarmupCosineLR");
    set("scheduler.type", ours + "type", *type);
    if (!cosine) warmup_rates(params, ours);
    copy(params + "warmup_min_ratio", ours + "warmup_min_ratio");
    copy(params + "cos_min_ratio", ours + "cos_min_ratio");
    copy(params + "warmup_type", ours + "warmup_type");
    for (auto const& [from, key] :
         {std::pair{"warmup_num_steps", "warmup_steps"}, std::pair{"total_num_steps", "total_steps"}})
      if (auto const steps = number(params + from)) set(params + from, ours + key, *steps);
    if (!file_.has(params + "warmup_num_steps")) set_default("scheduler.type", ours + "warmup_steps", "1000");
  }

  /// WarmupLR and WarmupDecayLR have rates of their own, whatever the optimiser's.
  void warmup_rates(std::string const& params, std::string const& ours) {
    auto const from = params + "warmup_max_lr";
    auto highest = number(from);
    if (highest)
      set(from, "train.optimizer.lr", *highest);
    else if (!file_.has(from))
      set_default("scheduler.type", "train.optimizer.lr", "0.001");
    rate_is_set_ = highest || !file_.has(from);
    if (!highest) highest = file_.has(from) ? number("optimizer.params.lr") : std::nullopt;
    if (!highest)
      highest = as_number(yaml_.text("train.optimizer.lr").value_or(file_.has(from) ? "" : "0.001"));
    auto const lowest = number(params + "warmup_min_lr").value_or(0);
    if (lowest == 0) return;
    FSLLM_CHECK(
        highest && lowest <= *highest, "{} = {} (the highest rate is {}). Give warmup_max_lr above it.",
        file_.where(params + "warmup_min_lr"), lowest, highest ? fmt::format("{}", *highest) : "not known");
    set(params + "warmup_min_lr", ours + "warmup_min_ratio", lowest / *highest);
  }

  void optimizer() {
    std::string const params = "optimizer.params.", ours = "train.optimizer.";
    auto const type = given("optimizer.type");
    if (type) {
      static std::map<std::string, std::string> const names{{"adam", "AdamW"},
                                                            {"adamw", "AdamW"},
                                                            {"sgd", "SGD"},
                                                            {"adagrad", "Adagrad"},
                                                            {"rmsprop", "RMSprop"}};
      auto const found = names.find(lower_case(*type));
      if (found == names.end())
        return refuse("optimizer.type", "there are Adam, AdamW, SGD, Adagrad and RMSprop");
      bool const decoupled = lower_case(*type) == "adamw" || flag(params + "adam_w_mode").value_or(true);
      auto const name = found->second == "AdamW" && !decoupled ? "Adam" : found->second;
      set("optimizer.type", ours + "type", name);
      if (!file_.has(params + "weight_decay") && name == "AdamW" &&
          !flag(params + "torch_adam").value_or(false))
        set_default("optimizer.type", ours + "weight_decay", "0");
    }
    for (auto const* name : {"betas", "eps", "weight_decay", "momentum", "dampening", "nesterov", "amsgrad",
                             "alpha", "centered", "lr_decay"})
      copy(params + name, ours + name);
    if (rate_is_set_) {
      if (file_.has(params + "lr")) unread["the scheduler has rates of its own"].push_back(params + "lr");
      return;
    }
    copy(params + "lr", ours + "lr");
    if (type && !file_.has(params + "lr")) set_default("optimizer.type", ours + "lr", "0.001");
  }

  /// train_batch_size = train_micro_batch_size_per_gpu * gradient_accumulation_steps * ranks, as far as
  /// given.
  void batches() {
    char const *const of_all = "train_batch_size", *const of_one = "train_micro_batch_size_per_gpu",
                      *const of_steps = "gradient_accumulation_steps";
    auto total = number(of_all), micro = number(of_one), steps = number(of_steps);
    auto const ranks = static_cast<double>(ranks_);
    if (auto const own = yaml_.text("grad.grad_accum_count"); !steps && own) steps = as_number(*own);
    if (total || micro) {
      if (!steps) steps = total && micro ? *total / (*micro * ranks) : 1;
      if (!total) total = *micro * *steps * ranks;
      if (!micro) micro = *total / (*steps * ranks);
      bool const whole = *micro >= 1 && *steps >= 1 &&
                         *micro == static_cast<double>(static_cast<int64_t>(*micro)) &&
                         *steps == static_cast<double>(static_cast<int64_t>(*steps));
      auto const place = file_.where(given(of_all) ? of_all : of_one);
      FSLLM_CHECK(
          whole && *micro * *steps * ranks == *total,
          "{}: train_batch_size {} is not {} rows a rank times {} accumulated times {} ranks of a client "
          "(hpc.ranks_per_client), which is {}. Correct the three numbers, or start another number of "
          "ranks.",
          place, *total, *micro, *steps, ranks_, *micro * *steps * ranks);
      set(given(of_one) ? of_one : of_all, "dataloader.batch_size", *micro * ranks);
    }
    if (number(of_steps) || (steps && *steps != 1))
      set(given(of_steps) ? of_steps : of_all, "grad.grad_accum_count", *steps);
  }

  Config const& yaml_;
  Config const& file_;
  std::string source_;
  int64_t world_, ranks_ = 1;
  bool rate_is_set_ = false;  ///< by the scheduler
};

/// A document with this one key, at the line where the JSON has it.
Config one_key(Setting const& setting, Config const& file, std::string const& source) {
  std::string yaml;
  auto const where = file.where(setting.from);
  if (where.starts_with(source + ":")) {
    auto const line =
        as_number(where.substr(source.size() + 1, where.find(": ", source.size()) - source.size() - 1));
    yaml.append(static_cast<size_t>(line.value_or(1)) - 1, '\n');
  }
  std::string closing;
  auto const& key = setting.key;
  for (size_t begin = 0, dot = 0; dot != key.npos; begin = dot + 1) {
    dot = key.find('.', begin);
    yaml += fmt::format("{{{}: ", key.substr(begin, dot == key.npos ? dot : dot - begin));
    closing += "}";
  }
  return Config::parse(yaml + setting.value + closing, source);
}

void tell(Translation const& made, std::string const& source) {
  std::string text;
  for (auto const& setting : made.settings)
    text += fmt::format("\n  {} = {} ({})", setting.key, setting.value, setting.from);
  log_info("{} (llm.deepspeed.ds_config) as keys of this program:{}", source, text.empty() ? " none" : text);
  text.clear();
  for (auto const& [why, keys] : made.unread) text += fmt::format("\n  {}: {}", fmt::join(keys, ", "), why);
  if (!text.empty()) log_info("{}: read and without effect here, and why:{}", source, text);
}

}  // namespace

bool is_on(Config const& config, std::string const& key) {
  auto const given = lower_case(config.text(key).value_or("false"));
  return given == "true" || given == "yes" || given == "on";
}

std::filesystem::path file_beside(Config const& config, std::string const& key, std::string const& yaml) {
  namespace fs = std::filesystem;
  fs::path const given = expand_path(config.text(key).value_or(""), config.where(key));
  if (given.empty() || fs::exists(given)) return given;
  auto const beside = fs::path(yaml).parent_path() / given;
  return fs::exists(beside) ? beside : given;
}

std::string deepspeed_file(Config const& config, std::string const& yaml) {
  if (!is_on(config, "llm.deepspeed.use")) return "";
  auto const file = file_beside(config, "llm.deepspeed.ds_config", yaml);
  FSLLM_CHECK(
      !file.empty(),
      "{} = True (llm.deepspeed.ds_config names no file). Set it to the JSON file of DeepSpeed, or give "
      "its settings as hpc.zero_stage, hpc.ranks_per_client and hpc.offload.",
      config.where("llm.deepspeed.use"));
  return file.string();
}

Config with_deepspeed(Config const& config, std::string_view json, std::string const& source, int64_t ranks) {
  parse_json(json, source);
  std::string blanks(json);  // YAML reads JSON, but for tabs
  std::replace(blanks.begin(), blanks.end(), '\t', ' ');
  auto const file = Config::parse(blanks, source);
  Translation made(config, file, source, ranks);
  made.run();
  FSLLM_CHECK(made.refused.empty(),
              "{}: not available in this version: {}. Take {} out of the file, or set what asks for nothing.",
              source, fmt::join(made.refused, "; "), made.refused.size() == 1 ? "it" : "them");
  FSLLM_CHECK(
      made.contradictions.empty(),
      "{} (the configuration and llm.deepspeed.ds_config say different things; FS-LLM goes by the latter). "
      "Leave one of the two out, or write auto in the JSON.",
      fmt::join(made.contradictions, "; "));
  tell(made, source);
  auto merged = config;
  for (auto const& setting : made.settings) merged = merged.overridden_by(one_key(setting, file, source));
  merged.set("llm.deepspeed.use", "False");
  return merged;
}

}  // namespace fsllm
