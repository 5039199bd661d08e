# SPDX-License-Identifier: Apache-2.0
"""lm-evaluation-harness with fsllm_serve behind its model "local-completions", against its own "hf".

    lm_eval_same.py URL NAME MODEL_DIR WORK_DIR [ADAPTER_DIR] > REPORT.json
    lm_eval_same.py adapter MODEL_DIR ADAPTER_DIR              writes a LoRA adapter of random weights

Three tasks from files in WORK_DIR: multiple choice, perplexity of whole texts, and generation up to a stop string. The
report gives, for each, the number of items, the largest difference of log-likelihoods, how often greediness differs and
how many texts do.
"""
import json
import os
import sys

os.environ.update(CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
if sys.argv[1] == "adapter":
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, lora_alpha=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(sys.argv[2]), config).save_pretrained(sys.argv[3])
    sys.exit()
url, name, model_dir, work, *adapter = sys.argv[1:]
os.environ["HF_HOME"] = os.path.join(work, "huggingface")
import lm_eval
import torch
from lm_eval.tasks import TaskManager

torch.set_num_threads(1)
STORIES = [
    "Once upon a time, there was a little girl named Lily. She loved to play outside.",
    "Tom had a big red ball. He was very happy.",
    "The dog ran to the park. It saw a cat and a bird.",
    "One day, a boy named Ben found a small box under a tree.",
    "Sara and her mom went to the store to buy some food.",
    "The sun was bright. The birds sang in the trees, and the wind was warm.",
]
ENDINGS = [" She was happy.", " It was a good day.", " zzz qqq.", " They went home."]


def write(task, rows, yaml):
    with open(os.path.join(work, task + ".jsonl"), "w") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    with open(os.path.join(work, task + ".yaml"), "w") as out:
        out.write(f"task: {task}\ndataset_path: json\ndataset_kwargs:\n  data_files:\n"
                  f"    test: {work}/{task}.jsonl\ntest_split: test\n{yaml}")


write("serve_choice", [{"story": story, "choices": ENDINGS, "answer": i % 4} for i, story in enumerate(STORIES)] +
      [{"story": "Once upon a", "choices": [" time", " cat", " time, there"], "answer": 0}],
      "output_type: multiple_choice\ndoc_to_text: '{{story}}'\ndoc_to_choice: choices\ndoc_to_target: answer\n"
      "target_delimiter: ''\nmetric_list:\n  - metric: acc\n")
write("serve_perplexity", [{"text": " ".join(STORIES[i:] + STORIES[:i] * 3)} for i in range(4)],
      "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{text}}'\n"
      "metric_list:\n  - metric: word_perplexity\n")
write("serve_text", [{"text": story[:n]} for story in STORIES for n in (12, 25)],
      "output_type: generate_until\ndoc_to_text: '{{text}}'\ndoc_to_target: ''\ngeneration_kwargs:\n  until: ['.', '!']\n"
      "  max_gen_toks: 24\n  do_sample: false\nmetric_list:\n  - metric: exact_match\n")
TASKS = ["serve_choice", "serve_perplexity", "serve_text"]


def answers(model, arguments):
    results = lm_eval.simple_evaluate(model=model, model_args=arguments, tasks=TASKS, batch_size=4, log_samples=True,
                                      bootstrap_iters=0, task_manager=TaskManager(include_path=work, include_defaults=False))
    return {task: [answer for sample in sorted(results["samples"][task], key=lambda each: each["doc_id"])
                   for answer in sample["resps"]] for task in TASKS}


theirs = answers("hf", dict(pretrained=model_dir, dtype="float64", device="cpu", max_length=256,
                            **({"peft": adapter[0]} if adapter else {})))
# Of max_length the API's models keep one token for the answer, and one more for the context of a window.
ours = answers("local-completions", dict(model=name, base_url=url + "/v1/completions", tokenizer=model_dir,
                                         tokenizer_backend="huggingface", max_length=258, num_concurrent=4))


def flat(answer):  # a response may be wrapped in lists
    while isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    return answer


report = {}
for task in TASKS:
    pairs = [(flat(a), flat(b)) for a, b in zip(theirs[task], ours[task], strict=True)]
    entry = report[task] = {"items": len(pairs)}
    if task == "serve_text":
        entry["texts"] = [list(pair) for pair in pairs]
        entry["different"] = sum(a != b for a, b in pairs)
    elif task == "serve_choice":
        entry["largest"] = max(abs(float(a[0]) - float(b[0])) for a, b in pairs)
        entry["greedy"] = sum(bool(a[1]) for a, _ in pairs)
        entry["greedy_different"] = sum(bool(a[1]) != bool(b[1]) for a, b in pairs)
    else:
        entry["largest"] = max(abs(float(a) - float(b)) for a, b in pairs)
        entry["total"] = sum(float(a) for a, _ in pairs)
json.dump(report, sys.stdout)
