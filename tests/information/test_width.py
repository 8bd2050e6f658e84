"""The width control: the features' own spectrum, the known information whole, nothing else of the episode."""

import numpy as np

from compression_gap.information.width import hidden


def made(k=3, p=40, episodes=(40, 5, 5), frames=10, seed=0):
    rng = np.random.default_rng(seed)
    known, features, episode, first = {}, {}, {}, 0
    spectrum = np.arange(1, p + 1) ** -0.7
    for split, count in zip(("train", "validation", "test"), episodes, strict=True):
        n = count * frames
        known[split] = rng.standard_normal((n, k))
        features[split] = 5 + rng.standard_normal((n, p)) * spectrum
        episode[split] = first + np.repeat(np.arange(count), frames)
        first += count
    return known, features, episode


def test_width_and_spectrum_are_the_features_own():
    known, features, episode = made()
    found = hidden(known, features, episode)
    for split, values in features.items():
        assert found[split].shape == values.shape
        assert found[split].dtype == np.float32

    def spectrum(x):
        return np.linalg.eigvalsh(np.corrcoef(x.T))[::-1]

    np.testing.assert_allclose(spectrum(found["train"]), spectrum(features["train"]), rtol=0.35)


def test_the_known_is_there_whole_and_read_by_a_line():
    known, features, episode = made()
    found = hidden(known, features, episode)
    slopes = np.linalg.lstsq(
        np.column_stack([found["train"], np.ones(len(found["train"]))]), known["train"], rcond=None
    )[0]
    read = np.column_stack([found["test"], np.ones(len(found["test"]))]) @ slopes
    assert np.square(read - known["test"]).mean() < 1e-4


def test_the_rest_is_of_another_episode():
    """Features that name their episode name another one afterwards, but for the few components that are taken."""
    known, features, episode = made(k=1)
    names = np.eye(50)[:, :40] * 3
    named = {s: names[e % 40] + 0.1 * features[s] for s, e in episode.items()}
    found = hidden(known, named, episode)
    own = np.square(found["test"] - named["test"]).mean()
    shifted = np.roll(named["test"], -10, axis=0)  # ten frames an episode: the next one
    assert np.square(found["test"] - shifted).mean() < 0.3 * own


def test_no_more_than_half_of_the_components_are_taken():
    known, features, episode = made(k=30)
    found = hidden(known, features, episode)
    slopes = np.linalg.lstsq(found["train"], known["train"], rcond=None)[0]
    left = np.square(found["train"] @ slopes - known["train"]).mean()
    assert 0.1 < left < 0.7
