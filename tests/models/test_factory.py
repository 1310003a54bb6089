"""Models by name, and what is said when the name or a value is wrong."""

from __future__ import annotations

import subprocess
import sys

import pytest

from data.errors import InputError
from models.architectures import model_path
from models.factory import create_model

SIZES = {"num_users": 4, "num_songs": 5, "num_artists": 2}


def test_gat_is_the_default():
    model = create_model(SIZES)
    assert (type(model).__name__, model.config.embedding_dim, model.config.heads, model.config.dropout) == (
        "GAT",
        32,
        4,
        0.1,
    )


def test_a_class_anywhere_can_be_named():
    assert type(create_model({**SIZES, "architecture": "models.mf:MF"})).__name__ == "MF"


def test_naming_a_model_imports_no_torch():
    code = "import sys; from models.architectures import model_path; model_path({}); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"architecture": "lightgnc"}, "There is no architecture 'lightgnc'. Did you mean 'lightgcn'?"),
        ({"architecture": "nowhere.at:All"}, "'nowhere.at:All' cannot be imported"),
        ({"architecture": "models.mf:MG"}, "'models.mf' has no 'MG'"),
        ({"architecture": "models.mf:MFConfig"}, "MFConfig is not a subclass of RecommenderModel"),
        ({"architecture": "mf:"}, "cannot be imported"),
        ({"embedding_dim": 30, "heads": 4}, "does not divide embedding_dim 30"),
        ({"haeds": 4}, "model_config has the unknown key 'haeds'. Did you mean 'heads'?"),
        ({"architecture": "lightgcn", "heads": 4}, "model_config has the unknown key 'heads'"),
        ({"dropout": 1.0}, "model_config.dropout is 1.0"),
        ({"embedding_dim": 0}, "model_config.embedding_dim is 0"),
    ],
)
def test_a_wrong_value_is_explained(config, sentence):
    with pytest.raises(InputError) as error:
        create_model({**SIZES, **config})
    assert sentence in str(error.value)


def test_model_path_names_the_class():
    assert model_path({"architecture": "lightgcn"}) == "models.lightgcn:LightGCN"


def test_an_installed_package_brings_a_name(install):
    install("plain", "plain = models.mf:MF", group="songgraph.models")
    assert model_path({"architecture": "plain"}) == "models.mf:MF"
    assert type(create_model({"architecture": "plain", "num_users": 2, "num_songs": 2})).__name__ == "MF"
