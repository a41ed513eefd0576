"""Charts that are drawn in two threads leave Matplotlib's settings as they were."""

import threading

import matplotlib as mpl

from colordim.charts.style import settings


def test_threads_draw_one_after_the_other() -> None:
    before = mpl.rcParams["font.size"]
    inside, leave, second = threading.Event(), threading.Event(), threading.Event()

    def first_thread() -> None:
        with settings():
            inside.set()
            leave.wait(10)

    def second_thread() -> None:
        with settings(), settings():  # figures within figures are fine
            second.set()

    threads = [threading.Thread(target=each) for each in (first_thread, second_thread)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    assert not second.wait(0.1)
    leave.set()
    for thread in threads:
        thread.join(10)
    assert second.is_set()
    assert mpl.rcParams["font.size"] == before
