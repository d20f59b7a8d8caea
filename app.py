from trainer._hydra import main
main(lambda cfg: print('ran', cfg.seed))()
