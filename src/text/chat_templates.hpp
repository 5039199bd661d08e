// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace fsllm {

/// Chat templates by the formats that the models' makers describe. Each begins with BOS where the tokenizer
/// has one, ends an answer with its end-of-turn token, and may be asked for the head of the next answer.

/// OpenAI's chat markup, as Qwen, SmolLM2 and others use it. Without BOS, as those models are trained.
inline constexpr char const* kChatMl =
    "{%- for message in messages -%}\n"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}";

/// Vicuna 1.1 and later (Chiang et al. 2023), with its own system sentence where the chat has none.
inline constexpr char const* kVicuna =
    "{%- set ns = namespace(system=\"A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.\") -%}\n"
    "{%- if messages[0].role == 'system' -%}{%- set ns.system = messages[0].content -%}{%- endif -%}\n"
    "{{- bos_token ~ ns.system -}}\n"
    "{%- for message in messages -%}\n"
    "{%- if message.role == 'user' -%}{{- ' USER: ' + message.content|trim -}}\n"
    "{%- elif message.role == 'assistant' -%}{{- ' ASSISTANT: ' + message.content|trim ~ eos_token -}}\n"
    "{%- elif not loop.first -%}{{- raise_exception('a system message stands first') -}}{%- endif -%}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- ' ASSISTANT:' -}}{%- endif -%}";

/// LLaMA 2 Chat (Touvron et al. 2023): each pair of turns is a sequence of its own.
inline constexpr char const* kLlama2 =
    "{%- set ns = namespace(system='') -%}\n"
    "{%- for message in messages -%}\n"
    "{%- if message.role == 'system' -%}\n"
    "{%- if not loop.first -%}{{- raise_exception('a system message stands first') -}}{%- endif -%}\n"
    "{%- set ns.system = '<<SYS>>\\n' + message.content + '\\n<</SYS>>\\n\\n' -%}\n"
    "{%- elif message.role == 'user' -%}\n"
    "{%- if loop.previtem is defined and loop.previtem.role == 'user' -%}\n"
    "{{- raise_exception('user and assistant take turns') -}}{%- endif -%}\n"
    "{{- bos_token ~ '[INST] ' ~ (ns.system + message.content).strip() ~ ' [/INST]' -}}\n"
    "{%- set ns.system = '' -%}\n"
    "{%- else -%}\n"
    "{%- if loop.previtem is not defined or loop.previtem.role != 'user' -%}\n"
    "{{- raise_exception('user and assistant take turns') -}}{%- endif -%}\n"
    "{{- ' ' ~ message.content|trim ~ ' ' ~ eos_token -}}\n"
    "{%- endif -%}\n"
    "{%- endfor -%}";

/// LLaMA 3 (Meta 2024).
inline constexpr char const* kLlama3 =
    "{{- bos_token -}}\n"
    "{%- for message in messages -%}\n"
    "{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content|trim + "
    "'<|eot_id|>' -}}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif "
    "-%}";

/// Mistral Instruct 0.3. The system message stands in the first user turn (the maker's template moves it to
/// the last, so that no turn keeps its text when another follows).
inline constexpr char const* kMistral =
    "{%- set ns = namespace(system='') -%}\n"
    "{{- bos_token -}}\n"
    "{%- for message in messages -%}\n"
    "{%- if message.role == 'system' -%}\n"
    "{%- if not loop.first -%}{{- raise_exception('a system message stands first') -}}{%- endif -%}\n"
    "{%- set ns.system = message.content + '\\n\\n' -%}\n"
    "{%- elif message.role == 'user' -%}\n"
    "{%- if loop.previtem is defined and loop.previtem.role == 'user' -%}\n"
    "{{- raise_exception('user and assistant take turns') -}}{%- endif -%}\n"
    "{{- '[INST] ' + ns.system + message.content + '[/INST]' -}}\n"
    "{%- set ns.system = '' -%}\n"
    "{%- else -%}\n"
    "{%- if loop.previtem is not defined or loop.previtem.role != 'user' -%}\n"
    "{{- raise_exception('user and assistant take turns') -}}{%- endif -%}\n"
    "{{- ' ' ~ message.content|trim ~ eos_token -}}\n"
    "{%- endif -%}\n"
    "{%- endfor -%}";

}  // namespace fsllm
