"""What charrnn races against in PyTorch: its own recipe on nn.LSTM, and transformers, also nanoGPT's for a CPU."""

from __future__ import annotations

import copy
import itertools
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _clock import Clock
from torch import nn
from torch.nn import functional

from charrnn.planning.defaults import default_settings, machine_speed
from charrnn.planning.machine import machine_class, usable_cores
from charrnn.planning.schedule import Speed, learning_rate_at
from charrnn.text.corpus import Corpus
from charrnn.text.windows import steps_per_epoch, validation_streams, windows

TRIAL = 2.0  # seconds of updates in each precision, to choose the faster

Update = Callable[[int], None]


def all_cores() -> None:
    """Let PyTorch use them."""
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def has_bfloat16() -> bool:
    """Whether PyTorch's nn.LSTM runs in bfloat16 on this processor: without the instructions it raises an error."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def faster(prepare: Callable[[bool], tuple[nn.Module, Update]]) -> tuple[bool, float]:
    """Try updates without and, where the processor has it, with bfloat16 autocast.

    Args:
        prepare: given whether to autocast, makes a model at its start and what updates it.

    Returns:
        Whether autocast is faster, and the seconds of an update the faster way.
    """
    seconds = {}
    for bfloat16 in (False, True) if has_bfloat16() else (False,):
        _, update = prepare(bfloat16)
        update(0)
        done, start = 0, time.perf_counter()
        while done < 3 or time.perf_counter() - start < TRIAL:
            done += 1
            update(done)
        seconds[bfloat16] = (time.perf_counter() - start) / done
    best = min(seconds, key=lambda bfloat16: seconds[bfloat16])
    return best, seconds[best]


# --- charrnn's recipe ------------------------------------------------------------------------


class CharacterLSTM(nn.Module):
    """Embedding -> nn.LSTM -> softmax, time-major, which is PyTorch's faster layout."""

    def __init__(self, weights: dict[str, np.ndarray], layers: int, dropout: float) -> None:
        """Begin with the weights that charrnn begins with; its gate order is PyTorch's too."""
        super().__init__()
        self.embedding = nn.Embedding(*weights["embedding"].shape)
        units, size = weights["softmax.kernel"].shape
        self.lstm = nn.LSTM(weights["embedding"].shape[1], units, layers, dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)  # nn.LSTM has none after the last layer
        self.softmax = nn.Linear(units, size)
        own = {"embedding.weight": weights["embedding"]}
        own |= {"softmax.weight": weights["softmax.kernel"].T, "softmax.bias": weights["softmax.bias"]}
        for layer in range(layers):
            own[f"lstm.weight_ih_l{layer}"] = weights[f"layer{layer}.kernel"].T
            own[f"lstm.weight_hh_l{layer}"] = weights[f"layer{layer}.recurrent_kernel"].T
            own[f"lstm.bias_ih_l{layer}"] = weights[f"layer{layer}.bias"]
            own[f"lstm.bias_hh_l{layer}"] = np.zeros_like(weights[f"layer{layer}.bias"])
        self.load_state_dict({name: torch.tensor(weight) for name, weight in own.items()})
        for layer in range(layers):  # one bias is enough; with two it would learn twice as fast
            getattr(self.lstm, f"bias_hh_l{layer}").requires_grad_(False)

    def forward(self, ids: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        """From ids (T, B) and a state to logits (T, B, V) and the state after."""
        outputs, state = self.lstm(self.embedding(ids), state)
        return self.softmax(self.dropout(outputs)), state


def train_lstm(corpus: Corpus, minutes: float, scored: int) -> None:
    """Train PyTorch's nn.LSTM as charrnn would train `--cell lstm` in so many minutes, and print its losses.

    The settings, the initial weights, the batches, the streams that start anew, clipping, AdamW, the schedule and
    the moving average of the weights are charrnn's; the number of updates follows from PyTorch's speed.

    Args:
        corpus: the text.
        minutes: to fit the training into.
        scored: characters of a validation at most.
    """
    from charrnn.training.backend import choose_device
    from charrnn.training.model import CharacterModel
    from charrnn.training.trainer import AVERAGE_DECAY, CLIP_NORM, FRESH_EVERY, WEIGHT_DECAY, log_frequencies

    all_cores()
    choose_device("cpu")
    given = {"vocabulary": corpus.vocabulary.kind, "minutes": minutes, "cell": "lstm"}
    settings = default_settings(corpus.training_characters, given, machine_speed(machine_class("cpu"), usable_cores()))
    batch_size, seq_length = settings.batch_size, settings.seq_length
    weights = CharacterModel(settings.network(corpus.vocabulary), 0.0, settings.seed).to_numpy()
    weights["softmax.bias"] = log_frequencies(corpus)
    epoch_steps = steps_per_epoch(corpus.training_characters, batch_size, seq_length)
    total_steps = epoch_steps  # until the speed is known

    def zero_state(streams: int) -> Any:
        return tuple(torch.zeros(settings.layers, streams, settings.units) for _ in range(2))

    def prepare(bfloat16: bool) -> tuple[nn.Module, Update]:
        """The average of the model, which is to be validated, and its update."""
        torch.manual_seed(settings.seed)
        model = CharacterLSTM(weights, settings.layers, settings.dropout)
        average = copy.deepcopy(model).eval()
        trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
        parameters = [weight for _, weight in trained]
        averages = [average.get_parameter(name) for name, _ in trained]
        kernels = [weight for name, weight in trained if weight.ndim == 2 and not name.startswith("embedding")]
        others = [weight for name, weight in trained if weight.ndim == 1 or name.startswith("embedding")]
        optimizer = torch.optim.AdamW(
            [{"params": kernels, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}],
            fused=True,
        )
        batches = itertools.chain.from_iterable(
            windows(corpus.ids, corpus.training_characters, batch_size, seq_length, settings.seed, epoch)
            for epoch in itertools.count()
        )
        state = zero_state(batch_size)

        def update(step: int) -> None:
            nonlocal state
            if step % epoch_steps == 0:
                state = zero_state(batch_size)
            elif step % FRESH_EVERY == 0:
                for tensor in state:
                    tensor[:, step // FRESH_EVERY % batch_size] = 0
            ids, targets = (torch.from_numpy(part.T.astype(np.int64)) for part in next(batches))
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                logits, new_state = model(ids, state)
            loss = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, total_steps, settings.learning_rate)
                group["eps"] = 1e-7 / math.sqrt(1 - 0.999 ** (step + 1))  # Keras adds it before the correction
            optimizer.step()
            state = tuple(tensor.detach().float() for tensor in new_state)
            with torch.no_grad():
                torch._foreach_lerp_(averages, parameters, 1 - min(AVERAGE_DECAY, (step + 1) / (step + 10)))

        return average, update

    inputs, targets, weight = (
        torch.from_numpy(array.T)  # (W, S)
        for array in validation_streams(corpus.ids, corpus.validation_start, seq_length, limit=scored)
    )

    def validate() -> float:
        state, total = zero_state(inputs.shape[1]), 0.0
        with torch.inference_mode():
            for start in range(0, len(inputs), 1000):
                part = slice(start, start + 1000)
                logits, state = average(inputs[part], state)
                losses = functional.cross_entropy(
                    logits.flatten(0, 1), targets[part].flatten().long(), reduction="none"
                )
                total += float(losses @ weight[part].flatten())
        return total / float(weight.sum())

    bfloat16, seconds = faster(prepare)
    total_steps = Speed(seconds, 0.0, 0.0).steps_within(60 * minutes, batch_size * seq_length, inputs.numel())
    average, update = prepare(bfloat16)
    clock = Clock(validate)
    for step in range(total_steps):
        update(step)
        clock.tick(last=step + 1 == total_steps)


# --- a transformer ---------------------------------------------------------------------------

BATCH_SIZE, ITERATIONS = 12, 2000
HIGHEST_RATE, LOWEST_RATE, WARM_UP = 1e-3, 1e-4, 100
DEVIATION, DECAY = 0.02, 0.1  # of the first weights; of weights in AdamW


@dataclass(frozen=True)
class Size:
    """The size of a transformer, and whether it turns queries and keys by their positions, or adds learned ones."""

    layers: int = 4
    heads: int = 4
    width: int = 128
    context: int = 64
    is_rotary: bool = False
    dropout: float = 0.0


def turned(heads: torch.Tensor) -> torch.Tensor:
    """Rotary positions (Su et al., 2021, arXiv:2104.09864) for queries or keys (B, heads, T, width / heads)."""
    half = heads.shape[-1] // 2
    angles = torch.outer(torch.arange(heads.shape[-2]), 10_000 ** (-torch.arange(half) / half))
    cosine, sine = angles.cos().to(heads.dtype), angles.sin().to(heads.dtype)
    one, other = heads.split(half, dim=-1)
    return torch.cat([one * cosine - other * sine, other * cosine + one * sine], dim=-1)


class Block(nn.Module):
    """A layer: attention to what came before, and a perceptron; each reads normalised, and adds to its input."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size, width = size, size.width
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.attention = nn.Linear(width, 3 * width, bias=False)  # queries, keys and values
        self.attention_out = nn.Linear(width, width, bias=False)
        self.perceptron_norm = nn.LayerNorm(width, bias=False)
        self.perceptron = nn.Linear(width, 4 * width, bias=False)
        self.perceptron_out = nn.Linear(4 * width, width, bias=False)
        self.dropout = nn.Dropout(size.dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (B, T, width) to (B, T, width)."""
        heads = self.attention(self.attention_norm(x)).unflatten(2, (3, self.size.heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # (B, heads, T, width / heads)
        if self.size.is_rotary:
            query, key = turned(query), turned(key)
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.dropout(self.attention_out(attended.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.perceptron_out(functional.gelu(self.perceptron(self.perceptron_norm(x)))))


class Transformer(nn.Module):
    """A GPT: layers that normalise first, no biases, one matrix to embed and to predict."""

    def __init__(self, vocabulary_size: int, size: Size) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, size.width)
        self.position = None if size.is_rotary else nn.Embedding(size.context, size.width)
        self.blocks = nn.Sequential(*(Block(size) for _ in range(size.layers)))
        self.norm = nn.LayerNorm(size.width, bias=False)
        self.dropout = nn.Dropout(size.dropout)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                into_sum = name.endswith("_out.weight")  # 2 * layers of them add up
                nn.init.normal_(weight, std=DEVIATION / math.sqrt(2 * size.layers) if into_sum else DEVIATION)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """From ids (B, T) to logits (B, T, V)."""
        x = self.embedding(ids)
        if self.position is not None:
            x = x + self.position.weight[: ids.shape[1]]
        return functional.linear(self.norm(self.blocks(self.dropout(x))), self.embedding.weight)


def transformer_optimizer(model: nn.Module, beta_2: float) -> torch.optim.Optimizer:
    """AdamW, which decays the matrices."""
    parameters = list(model.parameters())
    return torch.optim.AdamW(
        [
            {"params": [weight for weight in parameters if weight.ndim == 2], "weight_decay": DECAY},
            {"params": [weight for weight in parameters if weight.ndim == 1], "weight_decay": 0.0},
        ],
        betas=(0.9, beta_2),
        fused=True,
    )


def transformer_update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ids: torch.Tensor,
    positions: torch.Tensor,
    rate: float,
    bfloat16: bool,
) -> float:
    """One update on the characters at some positions (B, T); the loss before it."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits = model(ids[positions])
    loss = functional.cross_entropy(logits.float().flatten(0, 1), ids[positions + 1].flatten())
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return float(loss.detach())


def window_loss(
    model: nn.Module, ids: torch.Tensor, validation_start: int, context: int, last: int, scored: int
) -> float:
    """Loss over the validation part, in windows of which only the last so many characters are scored.

    Args:
        model: from ids (B, T) to logits (B, T, V).
        ids: of the whole text.
        validation_start: where the validation part starts.
        context: T, the length of a window.
        last: characters that are scored in each.
        scored: characters to score at most, in windows spread evenly.
    """
    first = validation_start - (context - last)  # of the first window's targets
    starts = torch.arange(first, len(ids) - context + 1, last)
    starts = starts[:: math.ceil(len(starts) * last / scored)]
    span, total = torch.arange(context), 0.0
    with torch.inference_mode():
        for part in starts.split(500):
            positions = part[:, None] + span
            logits = model(ids[positions - 1])[:, -last:].float()
            targets = ids[positions[:, -last:]]
            total += float(functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum"))
    return total / (len(starts) * last)


def transformer_rate(
    iteration: int, iterations: int = ITERATIONS, highest: float = HIGHEST_RATE, lowest: float = LOWEST_RATE
) -> float:
    """The learning rate of an iteration: a linear warm-up, then half a cosine."""
    if iteration < WARM_UP:
        return highest * (iteration + 1) / (WARM_UP + 1)
    done = (iteration - WARM_UP) / (iterations - WARM_UP)
    return lowest + (highest - lowest) * (1 + math.cos(math.pi * done)) / 2


def train_transformer(corpus: Corpus, minutes: float, scored: int) -> None:
    """Train a transformer with nanoGPT's recipe for a CPU, and print its losses.

    Args:
        corpus: the text.
        minutes: after which to stop, should its iterations take longer.
        scored: characters of a validation at most.
    """
    all_cores()
    ids = torch.from_numpy(corpus.ids[:].astype(np.int64))
    context = Size().context

    def prepare(bfloat16: bool) -> tuple[nn.Module, Update]:
        torch.manual_seed(1337)  # nanoGPT's own
        model = Transformer(len(corpus.vocabulary), Size())
        optimizer = transformer_optimizer(model, 0.99)

        def update(iteration: int) -> None:
            positions = torch.randint(corpus.training_characters - context, (BATCH_SIZE, 1)) + torch.arange(context)
            transformer_update(model, optimizer, ids, positions, transformer_rate(iteration), bfloat16)

        return model, update

    def validate() -> float:
        return min(
            window_loss(model, ids, corpus.validation_start, context, last, scored) for last in (context, context // 2)
        )

    bfloat16, _ = faster(prepare)
    model, update = prepare(bfloat16)
    clock = Clock(validate, 60 * minutes)
    for iteration in range(ITERATIONS):
        update(iteration)
        if not clock.tick(last=iteration + 1 == ITERATIONS):
            break
