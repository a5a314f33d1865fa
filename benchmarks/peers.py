from harness import Row


def peers():
    yield Row("peers", "todo", "", None, None)
