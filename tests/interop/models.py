"""Tiny random models of every layout, with a real tokenizer, as transformers saves them."""
import json
import os
import shutil

import torch
import transformers as tf

VOCABULARY = 8200  # more rows than the tokenizer has ids

COMMON = dict(vocab_size=VOCABULARY, hidden_size=128, num_hidden_layers=3, bos_token_id=0, eos_token_id=0, pad_token_id=0)
ATTENTION = dict(num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512)
FALCON = dict(COMMON, **ATTENTION, head_dim=32, intermediate_size=192, mamba_d_ssm=192, mamba_n_heads=6, mamba_d_head=32,
              mamba_d_state=64, mamba_n_groups=2, mamba_norm_before_gate=False, mamba_chunk_size=32, rope_theta=10000.0)
GRANITE = dict(COMMON, **ATTENTION, intermediate_size=192, shared_intermediate_size=192, mamba_expand=2, mamba_n_heads=8,
               mamba_d_head=32, mamba_d_state=64, mamba_n_groups=1, mamba_chunk_size=32, num_local_experts=0, num_experts_per_tok=0,
               attention_multiplier=32 ** -0.5, layer_types=["mamba", "attention", "mamba"])
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
LONG = dict(rope_type="longrope", rope_theta=10000.0, short_factor=[1.0 + 0.05 * i for i in range(16)],
            long_factor=[1.0 + 0.5 * i for i in range(16)], original_max_position_embeddings=512)
LLAMA = dict(COMMON, **ATTENTION, intermediate_size=192)

MODELS = {
    "falcon_h1": (tf.FalconH1Config, dict(FALCON, mamba_rms_norm=False)),
    "falcon_h1, one narrow head": (tf.FalconH1Config, dict(FALCON, num_attention_heads=1, num_key_value_heads=1, head_dim=16)),
    "falcon_h1, grouped norm": (tf.FalconH1Config, dict(FALCON, mamba_rms_norm=True, tie_word_embeddings=True)),
    "granitemoehybrid, rotary": (tf.GraniteMoeHybridConfig, dict(GRANITE, position_embedding_type="rope")),
    "granitemoehybrid, Llama 3 rotary": (tf.GraniteMoeHybridConfig, dict(GRANITE, position_embedding_type="rope",
                                                                         rope_parameters=LLAMA3)),
    "granitemoehybrid, multipliers": (tf.GraniteMoeHybridConfig, dict(
        GRANITE, position_embedding_type=None, attention_multiplier=0.1, embedding_multiplier=3.0, residual_multiplier=0.5,
        logits_scaling=2.0)),
    "mamba2": (tf.Mamba2Config, dict(COMMON, num_heads=8, head_dim=32, state_size=64, n_groups=1, expand=2, chunk_size=32)),
    "mamba": (tf.MambaConfig, dict(COMMON, state_size=16)),
    "llama, Llama 3 rotary": (tf.LlamaConfig, dict(LLAMA, rope_parameters=LLAMA3)),
    "llama, head_dim 48": (tf.LlamaConfig, dict(LLAMA, head_dim=48, tie_word_embeddings=True)),
    "mistral": (tf.MistralConfig, dict(LLAMA, sliding_window=None)),
    "qwen2": (tf.Qwen2Config, dict(LLAMA)),
    "qwen3": (tf.Qwen3Config, dict(LLAMA, head_dim=32)),
    "phi3": (tf.Phi3Config, dict(LLAMA)),
    "phi3, longrope": (tf.Phi3Config, dict(LLAMA, rope_parameters=LONG, original_max_position_embeddings=512)),
    "olmo2": (tf.Olmo2Config, dict(LLAMA)),
    "smollm3": (tf.SmolLM3Config, dict(LLAMA, num_hidden_layers=4, no_rope_layer_interval=4)),
    "starcoder2": (tf.Starcoder2Config, dict(LLAMA, sliding_window=None)),
    "granite": (tf.GraniteConfig, dict(LLAMA, embedding_multiplier=3.0, residual_multiplier=0.5, logits_scaling=2.0,
                                       attention_multiplier=0.2)),
    "gemma2": (tf.Gemma2Config, dict(LLAMA, num_hidden_layers=4, head_dim=32, query_pre_attn_scalar=32, sliding_window=64)),
    "gemma3_text": (tf.Gemma3TextConfig, dict(LLAMA, num_hidden_layers=6, head_dim=32, query_pre_attn_scalar=32, sliding_window=64)),
}


def make(name, directory, tokenizer):
    """Writes model `name` with the tokenizer.json of directory `tokenizer`; bf16 numbers stored as fp32."""
    kind, settings = MODELS[name]
    torch.manual_seed(1)
    model = tf.AutoModelForCausalLM.from_config(kind(**settings), attn_implementation="eager").float().eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            if value.ndim == 1 and not key.endswith("A_log"):
                value.add_(0.1 * torch.randn_like(value))  # norms and biases are not all one and zero
            elif value.ndim == 2:
                value.mul_(2)
            value.copy_(value.bfloat16().float())
    model.save_pretrained(directory)
    shutil.copy(os.path.join(tokenizer, "tokenizer.json"), directory)
    config = os.path.join(directory, "tokenizer_config.json")
    with open(config, "w", encoding="utf-8") as file:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}, file)
