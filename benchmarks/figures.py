"""The figures of the reports' pages, drawn from the trainings of claims.py."""


def draw_all(root):
    raise NotImplementedError
