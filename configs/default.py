"""The recipe every other one starts from: a blind model for one mark on COCO photographs, the Noise2Noise way.

    python -m training.train --config=default --workdir=runs/mine \
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
    # The same crops in the same order in every run of the same seed, also in one that was killed and started again:
    # with it a run on one device is repeated to the bit. Costs some speed where shards are slow to read.
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
    # "unet", "srresnet" or "nafnet", see training/models; "repair" has a recipe of its own, of that name.
    config.model.name = "unet"
    # Features at each resolution, and blocks there. Empty: the model's own, so that its name alone selects it.
    # unet: (48, 72, 96, 144) and (1, 2, 2, 2), residual blocks, from half the picture's resolution downwards.
    # srresnet: (64,) and (16,), residual blocks at the picture's resolution.
    # nafnet: (32, 64, 128) and (1, 2, 4), blocks, from half the picture's resolution downwards.
    config.model.features = ()
    config.model.blocks = ()
    # repair: (16, 32, 64, 128) and (0, 2, 1, 2), residual blocks, from half the picture's resolution downwards.
    # nafnet alone: side of the window that its attention averages over, in samples of each resolution; odd.
    config.model.window = 7

    # repair alone: what it learns to repair, see training/keyed/lesson.py.
    config.keyed = ml_collections.ConfigDict()
    # What happens to a picture after it was overlaid: a corruption spec.
    config.keyed.after = ""
    # Share of the crops whose mark was located or fitted not quite rightly; by how many pixels and what share of its
    # opacity at most.
    config.keyed.misfit = 0.5
    config.keyed.shift = 0.3
    config.keyed.opacity_error = 0.015

    # Weights to start from: an export or a workdir of the same network. Empty: fresh ones.
    config.init = ""

    config.loss = "mae"
    # How much more a pixel counts that an overlay covers in the source: 2.0 makes it three times another's weight.
    config.covered_weight = 2.0
    # Whether that surplus is taken in proportion to the overlay's opacity.
    config.weight_by_alpha = False
    # Weight of the second lesson, telling where an overlay is: cross-entropy, beside the first one's mean error.
    config.presence_weight = 0.3
    # Pictures a step over all replicas together.
    config.batch_size = 16
    # adam, adamw, or lamb for batches of hundreds.
    config.optimizer = "adam"
    config.weight_decay = 0.0
    # Of the global batch: it stays when devices are added and the batch does not grow.
    config.learning_rate = 1e-3
    # cosine (to zero), constant, or quarters (halved at each quarter of the run, as the older scripts did).
    config.schedule = "cosine"
    # Share of the run in which the learning rate rises from zero first.
    config.warmup = 0.05
    # Decay a step of the average of the weights that is validated and exported; 0 for the weights themselves.
    config.ema = 0.0
    # Gradients of a larger global norm are scaled down to this one.
    config.clip_norm = 1.0
    config.steps = 20_000
    # Wall-clock budget in minutes, 0 for none; validations count, the last one comes on top. The schedule is fitted to
    # whichever of the two ends sooner.
    config.max_minutes = 0.0
    # Steps in one call of the compiled graph: between them nothing waits for Python.
    config.steps_per_execution = 1
    # Ends the run when so many validations in a row brought no better PSNR; 0 for never.
    config.patience = 0

    config.log_every = 50
    config.eval_every = 1000
    config.checkpoint_every = 1000
    config.keep_checkpoints = 3
    # Centre crops of the validation split, and their side in pixels.
    config.val_crops = 32
    config.val_crop = 256
    return config
