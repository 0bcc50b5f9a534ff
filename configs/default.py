"""The recipe that all others start from: a blind model for one watermark on COCO photographs, trained as Noise2Noise.

    python -m training.train --config=default --workdir=runs/mine \
        --config.data.dir=tfrecords --config.source='watermark:canvas=mark.png'
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the default recipe; other recipes call this and change some fields."""
    config = ml_collections.ConfigDict()

    # Every random draw of a run follows from this number, the step and the image's index in the global batch.
    config.seed = 0

    config.data = ml_collections.ConfigDict()
    # A folder that preprocessing.coco_to_tfrecord finished.
    config.data.dir = ""
    config.data.train_split = "train"
    config.data.val_split = "val"
    # Side of the square training crops, in pixels.
    config.data.crop = 128
    # Crops taken from one decoded window. More crops cost less decoding, and make neighboring crops more alike.
    config.data.crops_per_image = 4
    # Side of the decoded window, as a multiple of the crop. Only the window's part of a JPEG is reconstructed.
    config.data.window = 2.0
    # Crops held for shuffling: 48 KiB each at 128 pixels.
    config.data.shuffle_crops = 2048
    # Whether runs of the same seed see the same crops in the same order, even when killed and resumed. A run on one
    # device then repeats to the bit. Costs some speed where shards are slow to read.
    config.data.deterministic = False

    # Corruption spec of the network's input; see the table in docs/training.md.
    config.source = ""
    # Corruption spec of the target: "same" is Noise2Noise (the source's spec, drawn anew), "clean" is supervised
    # training, and any other spec is used as given.
    config.target = "same"
    # Corruption spec of the validation crops; "same" is the source's.
    config.val = "same"
    # Whether to leave pixels that the target's own overlay covers out of the loss: its place is known, and those pixels
    # teach nothing but noise.
    config.mask_target = True

    config.model = ml_collections.ConfigDict()
    # "unet", "srresnet" or "nafnet", see training/models; "repair" has its own recipe, configs/repair.py.
    config.model.name = "unet"
    # Features and blocks at each resolution. Empty for the model's defaults, so that its name alone selects it.
    # unet: (48, 72, 96, 144) and (1, 2, 2, 2), residual blocks, from half the image's resolution downwards.
    # srresnet: (64,) and (16,), residual blocks at the image's resolution.
    # nafnet: (32, 64, 128) and (1, 2, 4), blocks, from half the image's resolution downwards.
    # repair: (16, 32, 64, 128) and (0, 2, 1, 2), residual blocks, from half the image's resolution downwards.
    config.model.features = ()
    config.model.blocks = ()
    # nafnet only: side of the window that its attention averages over, in samples of each resolution; odd.
    config.model.window = 7

    # repair only: what it learns to repair, see training/keyed/lesson.py.
    config.keyed = ml_collections.ConfigDict()
    # Corruption spec applied to an image after the overlay.
    config.keyed.after = ""
    # Share of crops with an inexactly located and fitted watermark, its largest shift in pixels, and its largest
    # relative error of the opacity.
    config.keyed.misfit = 0.5
    config.keyed.shift = 0.3
    config.keyed.opacity_error = 0.015

    # Export or workdir of the same network to take initial weights from. Empty for random initialization.
    config.init = ""

    config.loss = "mae"
    # Extra weight in the loss of pixels that the source's overlay covers: 2.0 makes it three times that of the others.
    config.covered_weight = 2.0
    # Whether the extra weight is proportional to the overlay's opacity.
    config.weight_by_alpha = False
    # Weight of the second loss, the cross-entropy of an overlay's presence; the first is the mean error.
    config.presence_weight = 0.3
    # Images per step over all replicas.
    config.batch_size = 16
    # adam, adamw, or lamb for batches of hundreds.
    config.optimizer = "adam"
    config.weight_decay = 0.0
    # For the global batch: keep it when adding devices without a larger batch.
    config.learning_rate = 1e-3
    # cosine (to zero), constant, or quarters (halved at each quarter of the run, as the older scripts did).
    config.schedule = "cosine"
    # Warm-up: share of the run in which the learning rate first rises from zero.
    config.warmup = 0.05
    # Decay per step of the moving average of the weights that is validated and exported; 0 for the weights themselves.
    config.ema = 0.0
    # Gradients with a larger global norm are scaled down to this norm.
    config.clip_norm = 1.0
    config.steps = 20_000
    # Wall-clock budget in minutes, 0 for none. It includes validations except the last one. The schedule is fitted to
    # whichever of the steps and the budget ends first.
    config.max_minutes = 0.0
    # Steps per call of the compiled graph; nothing waits for Python between them.
    config.steps_per_execution = 1
    # Ends the run after this many validations in a row without a better PSNR; 0 for never.
    config.patience = 0

    config.log_every = 50
    config.eval_every = 1000
    config.checkpoint_every = 1000
    config.keep_checkpoints = 3
    # Center crops of the validation split: their number, and their side in pixels.
    config.val_crops = 32
    config.val_crop = 256
    return config
