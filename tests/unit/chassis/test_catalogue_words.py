"""What a running service says of topics that it does not find."""

from services.chassis.kafka.catalogue import TopicChange
from services.chassis.kafka.catalogue_watch import _said
from services.chassis.kafka.cluster import Security


def test_a_topic_that_is_not_found_may_be_hidden_from_a_user_without_rights() -> None:
    missing = [TopicChange("neuroweaver.jobs", "create", "")]

    assert _said(missing, Security()) == "missing: neuroweaver.jobs; run `neuroweaver topics apply`"
    assert "(or trainer has no right to describe them)" in _said(missing, Security(protocol="SASL_SSL", username="trainer"))
