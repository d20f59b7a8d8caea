from trainer.errors import DataError
def f():
    raise DataError('imgs/: nothing there')
