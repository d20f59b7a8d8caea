
class Net(:
