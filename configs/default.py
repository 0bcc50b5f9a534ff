"""The recipe every other one starts from: a blind model for one mark on COCO photographs, the Noise2Noise way.

    python -m training.train --config=configs/default.py --workdir=runs/mine \
        --config.data.dir=tfrecords --config.source='watermark:canvas=mark.png'
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the default recipe; a variant calls this and changes the fields that differ."""
    config = ml_collections.ConfigDict()

    # Every random draw of a run follows from this number, the step and the picture's place in the global batch.
    config.seed = 0

    config.data = ml_collections.ConfigDict()
    # A folder that preprocessing.coco_to_tfrecord finished.
    config.data.dir = ""
    config.data.train_split = "train"
    config.data.val_split = "val"
    # Side of the square training crops, in pixels.
    config.data.crop = 128
    # Crops taken from one decoded window. More costs less decoding, and makes neighbouring crops more alike.
    config.data.crops_per_image = 4
    # Side of the window that is decoded, in crops. Only the window's part of a JPEG is reconstructed.
    config.data.window = 2.0
    # Crops held for shuffling: 48 KiB each at 128 pixels.
    config.data.shuffle_crops = 2048
    # The same order of crops in every run of the same seed. Costs some speed where shards are slow to read.
    config.data.deterministic = False

    # What lies over the network's input: a corruption spec, see the table in docs/training.md.
    config.source = ""
    # What lies over the picture it is compared with: "same" is Noise2Noise (the source's spec, drawn anew),
    # "clean" is supervised training, any other spec is taken as it is.
    config.target = "same"
    # What lies over the crops of validation; "same" is the source's spec.
    config.val = "same"
    # Leave out of the loss what the target's own overlay covers: its place is known, and those pixels teach
    # nothing but noise.
    config.mask_target = True

    config.model = ml_collections.ConfigDict()
    config.model.name = "unet"
    # Features at each resolution, from half the picture's downwards, and residual blocks there.
    config.model.features = (48, 72, 96, 144)
    config.model.blocks = (1, 2, 2, 2)

    config.loss = "mae"
    # How much more a pixel counts that an overlay covers in the source: 2.0 makes it three times another's weight.
    config.covered_weight = 2.0
    # Weight of the second lesson, telling where an overlay is: cross-entropy, beside the first one's mean error.
    config.presence_weight = 0.3
    # Pictures a step over all replicas together.
    config.batch_size = 16
    config.learning_rate = 1e-3
    # Share of the run in which the learning rate rises from zero; then it falls along a cosine to zero.
    config.warmup = 0.05
    # Gradients of a larger global norm are scaled down to this one.
    config.clip_norm = 1.0
    config.steps = 20_000
    # Wall-clock budget in minutes, 0 for none. The schedule is fitted to whichever of the two ends sooner.
    config.max_minutes = 0.0

    config.log_every = 50
    config.eval_every = 1000
    config.checkpoint_every = 1000
    config.keep_checkpoints = 3
    # Centre crops of the validation split, and their side in pixels.
    config.val_crops = 32
    config.val_crop = 256
    return config
