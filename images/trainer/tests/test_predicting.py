"""What a person is told who predicts with a model and gives it something that it cannot read."""

import pytest
import spacy

from tarmac_trainer import models
from tarmac_trainer.mlflow_io.predicting import Predictor


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            [{"sentence": "Ada"}, {"sentence": None}],
            'object 2 of 2, {"sentence": null}, cannot be read: "sentence" is missing',
        ),
        ([{"sentence": float("nan")}], 'object 1 of 1, {"sentence": NaN}, cannot be read: "sentence" is missing'),
        ([{}], 'object 1 of 1, {}, cannot be read: "text" or "sentence" is missing'),
        ([{"sentence": " "}], 'object 1 of 1, {"sentence": " "}, cannot be read: '),
        (
            ["Ada sleeps"],
            "object 1 of 1 cannot be read: it is \"Ada sleeps\", and must be a dictionary such as {'sentence'",
        ),
        ([{"sentence": "Ada"}, None], "object 2 of 2 cannot be read: it is null, and must be a dictionary"),
    ],
)
def test_an_object_that_cannot_be_read_is_named(values: list[object], said: str) -> None:
    predictor = Predictor(models.get("named_entity_recognition"), spacy.blank("en"))
    with pytest.raises(ValueError, match="cannot be read") as error:
        predictor.predict(values)
    assert said in str(error.value)
    assert type(error.value) is ValueError, "one that a person knows without the trainer's code"
