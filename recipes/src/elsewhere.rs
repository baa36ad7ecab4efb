//! What other tools call things, for people who come from them. Only for hints: a guess is shown,
//! never taken.
//!
//! The words are those of torchtune, axolotl, LLaMA-Factory, TRL and transformers, unsloth, PEFT,
//! litgpt and mlx-lm.

/// What a key of another tool is here.
#[derive(Debug, Clone, Copy)]
enum Here {
    /// This key.
    Key(&'static str),
    /// Nothing; instead this.
    Nothing(&'static str),
    /// No key of a recipe; this does it.
    Not(&'static str),
}

use Here::{Key, Not, Nothing};

const RESUME: Here = Not("`graft train … --resume` goes on after the last checkpoint");
const DEVICE: Here = Nothing("one device computes a run, which `--device` names");
const SOCKETS: Here =
    Nothing("it opens no network connection; `logging.tensorboard` and report.html are files");
const BEST: Here = Nothing(
    "a run has `training.epochs` or `training.max_steps`; `evaluation.every_steps` shows the \
     validation loss on the way",
);
const LOSS: Here = Nothing("the loss is the next token's cross-entropy over all targets of a step");
const PREFERENCE: Here = Nothing("it tunes on rows with answers, or on plain text");
const KERNELS: Here = Nothing("its kernels choose by themselves what is fastest");
const RELATIVES: Here = Nothing(
    "of the relatives of LoRA it trains rsLoRA, DoRA, LoRA+, PiSSA and OLoRA: `adapter.rslora`, `dora`, `loraplus_lr_ratio`, `init`",
);
const TURNS: Here = Nothing(
    "each turn that `data.train_on` names is learnt with its end; `data.train_on_inputs` adds the rest",
);
const TEMPLATE: Here = Not(
    "the model folder's own chat template is used, and Llama 3.1's without one; see `data.chat`",
);
const BF16: Here = Key("training.compute_dtype");

/// One word a line.
#[rustfmt::skip]
const ELSEWHERE: &[(&str, Here)] = &[
    // The model.
    ("base_model", Key("model.path")),
    ("model_name_or_path", Key("model.path")),
    ("checkpoint_dir", Key("model.path")),
    ("checkpointer", Key("model.path")),
    ("checkpoint_files", Key("model.path")),
    ("tokenizer_config", Key("model.tokenizer")),
    ("tokenizer_name_or_path", Key("model.tokenizer")),
    ("tokenizer_path", Key("model.tokenizer")),
    ("model_type", Key("model.preset")),
    ("load_in_4bit", Key("quantization.format")),
    ("quantize_base", Key("quantization.format")),
    ("quantization_bit", Key("quantization.format")),
    ("quantize", Key("quantization.format")),
    ("bnb_4bit_quant_type", Key("quantization.format")),
    ("double_quantization", Key("quantization.double")),
    ("use_bnb_nested_quant", Key("quantization.double")),
    ("bnb_4bit_use_double_quant", Key("quantization.double")),
    ("load_in_8bit", Nothing("weights are frozen as they are, or at 4 bits with `quantization: nf4`")),
    ("trust_remote_code", Nothing("no code of a model folder is ever run")),
    ("special_tokens", Nothing("a tokenizer is taken as it is")),
    ("resize_vocab", Nothing("a tokenizer is taken as it is")),
    // The adapter.
    ("finetuning_type", Key("adapter.method")),
    ("fine_tune_type", Key("adapter.method")),
    ("training_type", Key("adapter.method")),
    ("use_peft", Key("adapter.method")),
    ("peft_type", Key("adapter.method")),
    ("r", Key("adapter.rank")),
    ("lora_r", Key("adapter.rank")),
    ("lora_rank", Key("adapter.rank")),
    ("lora_alpha", Key("adapter.alpha")),
    ("lora_dropout", Key("adapter.dropout")),
    ("use_rslora", Key("adapter.rslora")),
    ("peft_use_rslora", Key("adapter.rslora")),
    ("lora_target", Key("adapter.target_modules")),
    ("lora_target_modules", Key("adapter.target_modules")),
    ("lora_target_linear", Key("adapter.target_modules")),
    ("lora_attn_modules", Key("adapter.target_modules")),
    ("apply_lora_to_mlp", Key("adapter.target_modules")),
    ("exclude_modules", Key("adapter.target_modules")),
    ("lora_query", Key("adapter.target_modules")),
    ("lora_key", Key("adapter.target_modules")),
    ("lora_value", Key("adapter.target_modules")),
    ("lora_projection", Key("adapter.target_modules")),
    ("lora_mlp", Key("adapter.target_modules")),
    ("num_layers", Key("adapter.layers.last")),
    ("freeze_trainable_layers", Key("adapter.layers.last")),
    ("layers_to_transform", Key("adapter.layers")),
    ("peft_layers_to_transform", Key("adapter.layers")),
    ("resume_adapter_file", Key("adapter.init_from")),
    ("adapter_name_or_path", Key("adapter.init_from")),
    ("lora_model_dir", Key("adapter.init_from")),
    ("apply_lora_to_output", Key("adapter.target_modules")),
    ("lora_head", Key("adapter.target_modules")),
    ("modules_to_save", Key("adapter.modules_to_save")),
    ("lora_modules_to_save", Key("adapter.modules_to_save")),
    ("additional_target", Key("adapter.modules_to_save")),
    ("trainable_token_indices", Key("adapter.trainable_token_indices")),
    ("unfrozen_parameters", Nothing("the base stays frozen but for `adapter.modules_to_save` and `adapter.trainable_token_indices`; `adapter.method: full` trains every weight")),
    ("use_dora", Key("adapter.dora")),
    ("peft_use_dora", Key("adapter.dora")),
    ("use_loftq", RELATIVES),
    ("loftq_config", RELATIVES),
    ("pissa_init", Key("adapter.init")),
    ("init_lora_weights", Key("adapter.init")),
    ("peft_init_lora_weights", Key("adapter.init")),
    ("lora_bias", RELATIVES),
    ("bias", RELATIVES),
    ("loraplus_lr_embedding", Nothing("the matrices of an embedding learn at the rate of the step; `adapter.loraplus_lr_ratio` is for the B of projections and of the head")),
    // The data.
    ("dataset", Key("data.train")),
    ("datasets", Key("data.train")),
    ("dataset_name", Key("data.train")),
    ("dataset_dir", Key("data.train")),
    ("data_files", Key("data.train")),
    ("local_dataset", Key("data.train")),
    ("train_file", Key("data.train")),
    ("format_type", Key("data.train[].format")),
    ("formatting", Key("data.train[].format")),
    ("eval_dataset", Key("data.validation")),
    ("test_datasets", Key("data.validation")),
    ("validation_file", Key("data.validation")),
    ("val_size", Key("data.validation.fraction")),
    ("val_set_size", Key("data.validation.fraction")),
    ("cutoff_len", Key("data.max_seq_len")),
    ("sequence_len", Key("data.max_seq_len")),
    ("max_length", Key("data.max_seq_len")),
    ("max_seq_length", Key("data.max_seq_len")),
    ("packed", Key("data.packing")),
    ("sample_packing", Key("data.packing")),
    ("neat_packing", Key("data.packing")),
    ("padding_free", Key("data.packing")),
    ("group_by_length", Key("data.packing")),
    ("pad_to_sequence_len", Key("data.packing")),
    ("excess_length_strategy", Key("data.overlong")),
    ("truncation_side", Key("data.overlong")),
    ("train_on_input", Key("data.train_on_inputs")),
    ("train_on_prompt", Key("data.train_on_inputs")),
    ("train_on_completions", Key("data.train_on_inputs")),
    ("completion_only_loss", Key("data.train_on_inputs")),
    ("assistant_only_loss", Key("data.train_on_inputs")),
    ("mask_prompt", Key("data.train_on_inputs")),
    ("mask_history", Key("data.train_on.turns")),
    ("train_on_last_turn_only", Key("data.train_on.turns")),
    ("roles_to_train", Key("data.train_on.roles")),
    ("train_on_eos", TURNS),
    ("new_system_prompt", Key("data.system_prompt")),
    ("default_system", Key("data.system_prompt")),
    ("shuffle_merged_datasets", Key("data.shuffle")),
    ("template", TEMPLATE),
    ("chat_template", TEMPLATE),
    ("column_map", Key("data.train[].columns")),
    ("field_messages", Key("data.train[].columns")),
    ("field_system", Key("data.train[].columns")),
    ("field_instruction", Key("data.train[].columns")),
    ("field_input", Key("data.train[].columns")),
    ("field_output", Key("data.train[].columns")),
    ("message_property_mappings", Key("data.train[].turn_fields")),
    ("message_field_role", Key("data.train[].turn_fields")),
    ("message_field_content", Key("data.train[].turn_fields")),
    ("message_field_training", Key("data.train[].turn_fields")),
    ("tags", Not("`turn_fields` of a source names the fields of turns, and its `roles` the words for who speaks")),
    ("role_tag", Key("data.train[].turn_fields")),
    ("content_tag", Key("data.train[].turn_fields")),
    ("user_tag", Key("data.train[].roles")),
    ("assistant_tag", Key("data.train[].roles")),
    ("observation_tag", Key("data.train[].roles")),
    ("function_tag", Key("data.train[].roles")),
    ("system_tag", Key("data.train[].roles")),
    ("streaming", Nothing("rows are read before the first step, so that its plan is the whole run's")),
    ("dataset_prepared_path", Nothing("rows become tokens at every start")),
    ("tokenized_path", Nothing("rows become tokens at every start")),
    ("dataloader_num_workers", Nothing("rows are in memory before the first step")),
    ("preprocessing_num_workers", Key("training.threads")),
    // The training.
    ("num_epochs", Key("training.epochs")),
    ("num_train_epochs", Key("training.epochs")),
    ("iters", Key("training.max_steps")),
    ("max_steps_per_epoch", Key("training.max_steps")),
    ("batch_size", Key("training.micro_batch_size")),
    ("per_device_train_batch_size", Key("training.micro_batch_size")),
    ("global_batch_size", Key("training.gradient_accumulation_steps")),
    ("lr", Key("training.learning_rate")),
    ("lr_scheduler", Key("training.schedule")),
    ("lr_scheduler_type", Key("training.schedule")),
    ("lr_schedule", Key("training.schedule")),
    ("warmup_ratio", Key("training.schedule.cosine.warmup_ratio")),
    ("warmup_steps", Key("training.schedule.cosine.warmup_steps")),
    ("num_warmup_steps", Key("training.schedule.cosine.warmup_steps")),
    ("lr_warmup_steps", Key("training.schedule.cosine.warmup_steps")),
    ("min_lr", Key("training.schedule.cosine.final_ratio")),
    ("optim", Key("training.optimizer")),
    ("weight_decay", Key("training.optimizer.adamw.weight_decay")),
    ("adam_beta1", Key("training.optimizer.adamw.beta1")),
    ("adam_beta2", Key("training.optimizer.adamw.beta2")),
    ("adam_epsilon", Key("training.optimizer.adamw.eps")),
    ("clip_grad_norm", Key("training.max_grad_norm")),
    ("gradient_checkpointing", Key("training.checkpointing")),
    ("use_gradient_checkpointing", Key("training.checkpointing")),
    ("grad_checkpoint", Key("training.checkpointing")),
    ("enable_activation_checkpointing", Key("training.checkpointing")),
    ("enable_activation_offloading", Key("training.activation_offload")),
    ("activation_offloading", Key("training.activation_offload")),
    ("bf16", BF16),
    ("fp16", BF16),
    ("tf32", BF16),
    ("dtype", BF16),
    ("torch_dtype", BF16),
    ("precision", BF16),
    ("random_state", Key("training.seed")),
    ("data_seed", Key("training.seed")),
    ("device", DEVICE),
    ("device_map", DEVICE),
    ("deepspeed", DEVICE),
    ("fsdp", DEVICE),
    ("fsdp_config", DEVICE),
    ("ddp_timeout", DEVICE),
    ("tensor_parallel_size", DEVICE),
    ("compile", KERNELS),
    ("torch_compile", KERNELS),
    ("flash_attention", KERNELS),
    ("flash_attn", KERNELS),
    ("attn_implementation", KERNELS),
    ("sdp_attention", KERNELS),
    ("xformers_attention", KERNELS),
    ("use_liger_kernel", KERNELS),
    ("stage", PREFERENCE),
    ("rl", PREFERENCE),
    ("pref_loss", PREFERENCE),
    ("pref_beta", PREFERENCE),
    ("reward_model", PREFERENCE),
    ("loss", LOSS),
    ("loss_type", LOSS),
    ("label_smoothing_factor", LOSS),
    ("neftune_noise_alpha", Nothing("no noise is added to embeddings; see `adapter.dropout`")),
    ("teacher_model", Nothing("it distils from no teacher")),
    ("kd_loss", Nothing("it distils from no teacher")),
    ("kd_ratio", Nothing("it distils from no teacher")),
    ("early_stopping", BEST),
    ("early_stopping_patience", BEST),
    ("early_stopping_threshold", BEST),
    ("load_best_model_at_end", BEST),
    ("metric_for_best_model", BEST),
    ("greater_is_better", BEST),
    // What is measured, kept and shown.
    ("eval_steps", Key("evaluation.every_steps")),
    ("steps_per_eval", Key("evaluation.every_steps")),
    ("eval_strategy", Key("evaluation.every_steps")),
    ("evaluation_strategy", Key("evaluation.every_steps")),
    ("evals_per_epoch", Key("evaluation.every_steps")),
    ("do_eval", Key("evaluation.every_steps")),
    ("per_device_eval_batch_size", Nothing("rows that are measured share passes by themselves")),
    ("eval_batch_size", Nothing("rows that are measured share passes by themselves")),
    ("val_batches", Nothing("all rows of `data.validation` are measured")),
    ("save_steps", Key("checkpoint.every_steps")),
    ("save_every", Key("checkpoint.every_steps")),
    ("save_interval", Key("checkpoint.every_steps")),
    ("save_strategy", Key("checkpoint.every_steps")),
    ("saves_per_epoch", Key("checkpoint.every_steps")),
    ("save_total_limit", Key("checkpoint.keep")),
    ("save_adapter_weights_only", Not("the adapter is always written by itself, as `adapter/` in the run folder")),
    ("save_safetensors", Not("weights are always written as safetensors")),
    ("resume", RESUME),
    ("resume_from_checkpoint", RESUME),
    ("auto_resume_from_checkpoints", RESUME),
    ("overwrite_output_dir", Nothing("a folder belongs to one run: choose another `output_dir`")),
    ("logging_steps", Key("logging.log_every")),
    ("log_every_n_steps", Key("logging.log_every")),
    ("steps_per_report", Key("logging.log_every")),
    ("log_interval", Key("logging.log_every")),
    ("metric_logger", Key("logging.tensorboard")),
    ("log_peak_memory_stats", Not("metrics.jsonl always has the memory of every step")),
    ("profiler", Nothing("it has no profiler of its own")),
    ("report_to", SOCKETS),
    ("use_wandb", SOCKETS),
    ("wandb_project", SOCKETS),
    ("use_mlflow", SOCKETS),
    ("push_to_hub", SOCKETS),
    ("hub_model_id", SOCKETS),
    ("hub_token", SOCKETS),
    ("export_dir", Key("finish.merge")),
    ("merge_lora", Key("finish.merge")),
    ("run_name", Key("name")),
    ("out_dir", Key("output_dir")),
    ("adapter_path", Key("output_dir")),
    ("plugins", Nothing("a recipe is data, and names no code")),
];

/// What other tools call a value of ours.
const VALUES: &[(&str, &str)] = &[
    ("adamw_hf", "adamw"),
    ("adamw_torch", "adamw"),
    ("adamw_torch_fused", "adamw"),
    ("paged_adamw_32bit", "adamw"),
    ("adamw_bnb_8bit", "adamw_8bit"),
    ("adamw_torch_8bit", "adamw_8bit"),
    ("paged_adamw_8bit", "adamw_8bit"),
    ("qlora", "lora"),
    ("chat_template", "messages"),
];

/// Our name of what another tool calls `word`.
pub(crate) fn value(word: &str) -> Option<&'static str> {
    VALUES.iter().find(|(theirs, _)| *theirs == word).map(|(_, ours)| *ours)
}

/// What a key of another tool is here, as the help of an error.
pub(crate) fn hint(key: &str) -> Option<String> {
    let last = key.rsplit('.').next().unwrap_or(key);
    let (theirs, here) = ELSEWHERE.iter().find(|(theirs, _)| *theirs == last)?;
    Some(match here {
        Key(ours) => format!("did you mean `{ours}`?"),
        Nothing(instead) => format!("Graft has no `{theirs}`: {instead}"),
        Not(instead) => format!("`{theirs}` is no key of a recipe: {instead}"),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::keys::keys;

    #[test]
    fn every_word_is_listed_once_and_leads_to_a_key_that_exists() {
        let ours: BTreeSet<&str> = keys().iter().map(|key| key.path).collect();
        let mut seen = BTreeSet::new();
        for (theirs, here) in ELSEWHERE {
            assert!(seen.insert(theirs), "{theirs} stands twice");
            let is_ours = |path: &&&str| path.rsplit('.').next() == Some(theirs);
            match here {
                Key(path) => assert!(ours.contains(path), "{theirs}: {path}"),
                Nothing(_) | Not(_) => assert_eq!(ours.iter().find(is_ours), None, "{theirs}"),
            }
        }
    }
}
