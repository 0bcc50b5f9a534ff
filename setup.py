"""Packaging of Cleanplate; `make test` and `make demo` install from here into `.venv`."""

from pathlib import Path

from setuptools import find_packages, setup

_EXTRAS = {
    "gpu": ["tensorflow[and-cuda]==2.15.1"],
    "dask": ["apache-beam[dask]"],
    "aws": ["apache-beam[aws]"],
    # Training from s3://; 0.36 is the one for TensorFlow 2.15.
    "s3": ["apache-beam[aws]", "tensorflow-io==0.36.0"],
    # The photographs `make demo` trains on without COCO are shipped inside these two.
    "photos": ["scikit-image>=0.22", "scikit-learn>=1.3"],
    # The app. Releases before 6 want an older Pillow; there is no 6 for Python 3.9.
    "demo": ["gradio>=6.31,<7; python_version >= '3.10'"],
    "heic": ["pillow-heif"],
    "video": ["imageio-ffmpeg"],
    # Newer releases of onnx need an ml_dtypes that TensorFlow 2.15 does not allow.
    "onnx": ["tf2onnx>=1.16", "onnx<1.19", "onnxruntime"],
}
_EXTRAS["test"] = [
    "pytest>=8",
    "pytest-timeout",
    "pytest-xdist",
    "hypothesis",
    "ruff==0.17.6",
    "playwright",  # drives Chromium over the report's page and the app
    "psutil",
    "pyyaml",
    "kubernetes-validate",
    "trustme",  # throw-away certificates
    "moto[server]",  # speaks S3
    "opencv-python-headless<5",
    *_EXTRAS["dask"],
    *_EXTRAS["s3"],
    *_EXTRAS["demo"],
    *_EXTRAS["photos"],
    *_EXTRAS["heic"],
    *_EXTRAS["video"],
    *_EXTRAS["onnx"],
]

# One console script an entry point: cleanplate-train is python -m training.train, and so on.
_ENTRY_POINTS = [
    "preprocessing.coco_to_tfrecord",
    "preprocessing.download",
    "preprocessing.verify",
    "preprocessing.watermark",
    "training.evaluate",
    "training.local_workers",
    "training.preview",
    "training.train",
    "serving.app",
    "serving.audit",
    "serving.batch_restore",
    "serving.export",
    "serving.key",
    "serving.server",
    "serving.client",
    "examples.demo",
]

setup(
    name="cleanplate",
    version="0.2.0",
    description="Removes overlays (watermarks, date stamps, text) from photographs: a TensorFlow pipeline",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(
        include=["common*", "configs*", "preprocessing*", "training*", "serving*", "examples*", "pretrained"],
    ),
    package_data={
        "serving": ["tf_serving/*"],
        "training": ["kubernetes/*"],
        "pretrained": ["generic/**/*", "repair/**/*"],
    },
    python_requires=">=3.9,<3.12",
    install_requires=[
        "tensorflow==2.15.1",  # the last line that TensorFlow Addons supports
        "tensorflow-addons==0.23.0",
        "tensorflow-serving-api==2.15.1",
        "numpy<2",
        "apache-beam>=2.60",
        "absl-py",
        "google-crc32c",
        "grpcio",
        # Later ones want a protobuf that TensorFlow 2.15 does not.
        "grpcio-health-checking<1.63",
        "grpcio-reflection<1.63",
        "ijson",
        "ml-collections",
        "pillow",
        "prometheus-client",
        "requests",
        "tqdm",
    ],
    extras_require=_EXTRAS,
    entry_points={
        "console_scripts": [
            f"cleanplate-{module.split('.')[1].replace('_', '-')} = {module}:run" for module in _ENTRY_POINTS
        ]
    },
)
