from benchmarks import segmentation


def test_the_figures_are_those_of_the_mean_and_the_dice_of_each_class():
    def part(mean):
        return {"mean": mean, "std": 0.1, "n": 4}

    told = {
        "mean": {"dice": part(0.7), "hd95": part(3.5)},
        "classes": {"anterior": {"dice": part(0.8)}, "posterior": {"dice": part(0.6)}},
        "accuracy": part(0.9),
    }
    rows = {row.metric: (row.value, row.n, row.unit) for row in segmentation.figures(told, 12.34)}
    assert rows == {
        "dice": (0.7, 4, "1"),
        "hd95": (3.5, 4, "px"),
        "accuracy": (0.9, 4, "1"),
        "dice_anterior": (0.8, 4, "1"),
        "dice_posterior": (0.6, 4, "1"),
        "wall_s": (12.3, 1, "s"),
    }
    told["classes"].pop("posterior")
    assert not any("dice_" in row.metric for row in segmentation.figures(told, 1.0))
