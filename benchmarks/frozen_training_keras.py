"""The Keras side of frozen_training.py: ten frozen epochs of ResNet-50 on the same 500 photos, as the Keras guide shows it.

    KERAS_RESNET50=FOLDER HEADSTART_SHARED=../shared PYTHON_WITH_KERAS benchmarks/frozen_training_keras.py

FOLDER holds model.json and its shards (tensorflow.js format).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from frozen_training import cpu_seconds, rows


def load_weights(network: Any, folder: Path) -> None:
    """Fill a Keras network from tensorflow.js shards, by the names of its weights; every one must be found."""
    manifest = json.loads((folder / "model.json").read_text())["weightsManifest"]
    found: dict[str, np.ndarray] = {}
    for group in manifest:
        content = b"".join((folder / name).read_bytes() for name in group["paths"])
        place = 0
        for entry in group["weights"]:
            count = int(np.prod(entry["shape"]))
            found[entry["name"]] = np.frombuffer(content, "<f4", count, place).reshape(entry["shape"])
            place += 4 * count
    for layer in network.layers:
        for weight in layer.weights:
            weight.assign(found[f"{old_name(layer.name)}/{weight.name.split(':')[0]}"])


def old_name(name: str) -> str:
    """Return the name Keras gave a layer of ResNet-50 when these weights were written.

    >>> old_name("conv2_block1_0_conv"), old_name("conv5_block3_2_bn"), old_name("conv1_bn")
    ('res2a_branch1', 'bn5c_branch2b', 'bn_conv1')
    """
    if name.startswith("conv1_"):
        return "bn_conv1" if name.endswith("bn") else "conv1"
    stage, block, branch, kind = name.removeprefix("conv").split("_")
    letter = "abcdef"[int(block.removeprefix("block")) - 1]
    return f"{'bn' if kind == 'bn' else 'res'}{stage}{letter}_branch{['1', '2a', '2b', '2c'][int(branch)]}"


def dataset(photos: list[tuple[str, int]], shuffle: bool) -> Any:
    """Return batches of 32: decode, resize the short side to 256, crop 224, preprocess."""
    paths, labels = [path for path, _ in photos], [label for _, label in photos]

    def read(path: Any, label: Any) -> tuple[Any, Any]:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        size = tf.cast(tf.shape(image)[:2], tf.float32)
        shape = tf.cast(tf.round(size * 256 / tf.reduce_min(size)), tf.int32)
        image = tf.image.resize_with_crop_or_pad(tf.image.resize(image, shape), 224, 224)
        return keras.applications.resnet50.preprocess_input(image), label

    data = tf.data.Dataset.from_tensor_slices((paths, labels))
    data = data.shuffle(len(photos), seed=0) if shuffle else data
    return data.map(read, num_parallel_calls=tf.data.AUTOTUNE).batch(32).prefetch(tf.data.AUTOTUNE)


def main() -> None:
    """Train, then report as one JSON line."""
    keras.utils.set_random_seed(0)
    training, testing = rows()
    base = keras.applications.ResNet50(weights=None, include_top=False, pooling="avg")
    load_weights(base, Path(os.environ["KERAS_RESNET50"]))
    started = cpu_seconds()
    base.trainable = False
    inputs = keras.Input((224, 224, 3))
    model = keras.Model(inputs, keras.layers.Dense(37)(base(inputs, training=False)))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(dataset(training, shuffle=True), epochs=10, verbose=0)
    spent = cpu_seconds() - started
    accuracy = model.evaluate(dataset(testing, shuffle=False), verbose=0)[1]
    versions = {"keras": keras.__version__, "tensorflow": tf.__version__}
    print(json.dumps({"cpu_seconds": spent, "accuracy": float(accuracy), "versions": versions}))


if __name__ == "__main__":
    main()
